//! Devices that hold something else than the filesystem that is asked for: refused by name, and left as they are.

#![allow(clippy::unwrap_used, reason = "what is too large for its field fails the test")]

use anyhow::{Result, ensure};
use rds_csi_integration::driver::{Driver, Pod, block, filesystem};
use rds_csi_integration::rig::Rig;
use tonic::Code;

use super::{MIB, expect_refusal};

const SIZE: u64 = 512 * MIB;

/// How something comes to be on a device.
enum Made {
    /// By a program, whose last argument is the device.
    By(&'static str),
    /// By writing this at its beginning.
    Of(Vec<u8>),
}

/// LESSONS of others: a live volume was formatted since a probe found 'nothing'.
pub(crate) async fn a_device_with_foreign_data_is_never_formatted(rig: &Rig) -> Result<()> {
    // What each is, and how the refusal names it.
    let foreign = [
        (Made::By("mkfs.xfs -q -f"), "xfs"),
        (Made::By("mkfs.btrfs -q -f"), "btrfs"),
        (Made::By("mke2fs -q -F -t ext2"), "ext2"),
        (Made::By("mkswap"), "swap"),
        (Made::Of(vfat()), "vfat"),
        (Made::Of(master_boot_record(0x83)), "a partition table (dos)"),
        (Made::Of(gpt()), "a partition table (gpt)"),
        (Made::Of(b"LUKS\xba\xbe\x00\x01".to_vec()), "crypto_LUKS"),
        (Made::Of(physical_volume()), "LVM2_member"),
        (Made::Of(raid_member()), "linux_raid_member"),
        (Made::Of(put(&[(1_234_567, b"my own format")])), "data at byte 1234567"),
    ];
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        let raw = driver.create("foreign", block(), SIZE).await?;
        for (made, found) in foreign {
            let pod = driver.attach(&raw, w1).await?;
            let device = pod.path();
            w1.sh(&format!("dd if=/dev/zero of={device} bs=1M count=8 conv=notrunc 2>/dev/null")).await?;
            let make = match made {
                Made::By(program) => format!("{program} {device} >/dev/null"),
                Made::Of(bytes) => {
                    w1.guest().write("/run/foreign", 0o600, &bytes).await?;
                    format!("dd if=/run/foreign of={device} bs=1M conv=notrunc 2>/dev/null")
                }
            };
            w1.sh(&format!("{make} && sync")).await?;
            let digest = format!("dd if={device} bs=1M count=8 iflag=direct 2>/dev/null | sha256sum");
            let before = w1.sh(&digest).await?;
            driver.detach(pod).await?;

            let mut as_filesystem = raw.clone();
            as_filesystem.capability = filesystem("ext4");
            let context = driver.publish(&as_filesystem, w1.name()).await?;
            let pod = Pod::new(w1, as_filesystem.clone(), context, "pod-1");
            expect_refusal(pod.stage().await, Code::FailedPrecondition, &[found])?;
            ensure!(w1.nvme_connections().await?.is_empty(), "{found}: the failed stage left a connection");
            pod.unstage().await?;
            driver.unpublish(&as_filesystem, w1.name()).await?;

            let pod = driver.attach(&raw, w1).await?;
            ensure!(w1.sh(&digest).await? == before, "{found}: the refused stage changed the device");
            driver.detach(pod).await?;
        }
        driver.delete(&raw).await?;
        Ok(())
    })
    .await
}

/// These bytes at these places.
fn put(writes: &[(usize, &[u8])]) -> Vec<u8> {
    let mut all = Vec::new();
    for (at, bytes) in writes {
        let end = at + bytes.len();
        all.resize(all.len().max(end), 0);
        all[*at..end].copy_from_slice(bytes);
    }
    all
}

/// With one partition of this type, from the second sector on.
fn master_boot_record(kind: u8) -> Vec<u8> {
    put(&[(450, &[kind]), (454, &1_u32.to_le_bytes()), (458, &2048_u32.to_le_bytes()), (510, &[0x55, 0xaa])])
}

/// UEFI 2.10, 5.3: header and entries have checksums, and all places are told in the device's own sectors, which have 4 KiB here.
fn gpt() -> Vec<u8> {
    const SECTOR: u64 = 4096;
    let last = SIZE / SECTOR - 1;
    let mut entries = vec![0; 128 * 128];
    // A partition of Linux's, of whatever name.
    entries[..16].copy_from_slice(&0xe47d_47d8_693d_798e_4772_8483_0fc6_3daf_u128.to_le_bytes());
    entries[16..40].fill(7);
    entries[32..40].copy_from_slice(&256_u64.to_le_bytes());
    entries[40..48].copy_from_slice(&511_u64.to_le_bytes());
    let mut header = put(&[
        (0, b"EFI PART"),
        (8, &0x0001_0000_u32.to_le_bytes()),
        (12, &92_u32.to_le_bytes()),
        (24, &1_u64.to_le_bytes()),
        (32, &last.to_le_bytes()),
        (40, &6_u64.to_le_bytes()),
        (48, &(last - 5).to_le_bytes()),
        (56, &[7; 16]),
        (72, &2_u64.to_le_bytes()),
        (80, &128_u32.to_le_bytes()),
        (84, &128_u32.to_le_bytes()),
        (88, &crc32(!0, &entries).to_le_bytes()),
    ]);
    let checksum = crc32(!0, &header);
    header[16..20].copy_from_slice(&checksum.to_le_bytes());
    put(&[(0, &master_boot_record(0xee)), (4096, &header), (8192, &entries)])
}

/// LVM2's label, in the second sector; its checksum begins with a number of LVM's own.
fn physical_volume() -> Vec<u8> {
    let mut label = put(&[
        (0, b"LABELONE"),
        (8, &1_u64.to_le_bytes()),
        (20, &32_u32.to_le_bytes()),
        (24, b"LVM2 001"),
        (32, &[b'A'; 32]),
        (64, &SIZE.to_le_bytes()),
        (511, &[0]),
    ]);
    let checksum = !crc32(0xf597_a6cf, &label[20..]);
    label[16..20].copy_from_slice(&checksum.to_le_bytes());
    put(&[(512, &label)])
}

/// md's superblock of version 1.2, 4 KiB behind the beginning; its checksum is a sum of words.
fn raid_member() -> Vec<u8> {
    let mut superblock = put(&[
        (0, &0xa92b_4efc_u32.to_le_bytes()),
        (4, &1_u32.to_le_bytes()),
        (16, &[7; 16]),
        (32, b"rig:0"),
        (72, &1_u32.to_le_bytes()),
        (80, &1000_u64.to_le_bytes()),
        (144, &8_u64.to_le_bytes()),
        (255, &[0]),
    ]);
    let words =
        superblock.chunks_exact(4).map(|word| u64::from(u32::from_le_bytes(word.try_into().unwrap())));
    let sum: u64 = words.sum();
    let folded = u32::try_from((sum & 0xffff_ffff) + (sum >> 32)).unwrap();
    superblock[216..220].copy_from_slice(&folded.to_le_bytes());
    put(&[(4096, &superblock)])
}

/// The boot sector of a FAT16.
fn vfat() -> Vec<u8> {
    put(&[
        (0, &[0xeb, 0x3c, 0x90]),
        (3, b"mkfs.fat"),
        (11, &512_u16.to_le_bytes()),
        (13, &[32]),
        (14, &4_u16.to_le_bytes()),
        (16, &[2]),
        (17, &512_u16.to_le_bytes()),
        (21, &[0xf8]),
        (22, &256_u16.to_le_bytes()),
        (32, &u32::try_from(SIZE / 512).unwrap().to_le_bytes()),
        (36, &[0x80, 0, 0x29]),
        (43, b"NO NAME    FAT16   "),
        (510, &[0x55, 0xaa]),
    ])
}

/// The remainder that Ethernet, zip, GPT and LVM use, inverted at the end.
fn crc32(seed: u32, bytes: &[u8]) -> u32 {
    let remainder = bytes.iter().fold(seed, |remainder, byte| {
        (0..8).fold(remainder ^ u32::from(*byte), |bits, _| {
            if bits & 1 == 1 { (bits >> 1) ^ 0xedb8_8320 } else { bits >> 1 }
        })
    });
    !remainder
}
