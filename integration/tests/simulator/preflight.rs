//! What an operator's preflight reads before a driver is let loose: users, sessions, the firewall, counters.

use std::net::{IpAddr, SocketAddr};

use rds_csi_integration::simulator::backend::PoolPath;
use rds_csi_integration::simulator::{Group, Unset};
use serde_json::{Value, json};

use crate::client::Bench;

const DISK: &str = "/disk/btrfs/subvolume add fs=storage-pool name=v; \
     /disk add type=file slot=v file-path=/storage-pool/v/disk.img file-size=1M mount-filesystem=no";

async fn told(bench: &Bench, what: &str) -> Value {
    let line = format!(":put [:serialize to=json options=json.no-string-conversion [{what}]]");
    let answer = bench.framed(&line).await.unwrap();
    serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error} in {answer}"))
}

#[tokio::test]
async fn the_users_group_and_its_policies_are_told() {
    let bench = Bench::start_with(|options| options.access.user = Some("admin".to_owned())).await;
    let user = told(&bench, "/user print as-value proplist=name,group where name=admin").await;
    assert_eq!(user, json!([{".id": "*1", "name": "admin", "group": "rds-csi"}]));
    let policy = told(&bench, "/user/group get rds-csi policy").await;
    let policy: Vec<&str> = policy.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    assert_eq!(policy[..4], ["ssh", "read", "write", "!local"]);
    let full = told(&bench, "/user/group get full policy").await;
    assert!(full.as_array().unwrap().iter().all(|word| !word.as_str().unwrap().starts_with('!')), "{full}");
    assert_eq!(bench.framed(":put [/ip/service get ssh max-sessions]").await.unwrap(), "20");
}

#[tokio::test]
async fn a_user_does_only_what_the_group_is_granted() {
    let reader = Bench::start_with(|options| options.group = "ssh,read".parse().unwrap()).await;
    let refused = Err("not enough permissions (9)".to_owned());
    assert_eq!(reader.framed(DISK).await, refused);
    assert_eq!(reader.framed(":put [:len [/disk find]]").await.unwrap(), "1");

    let writer = Bench::start_with(|options| options.group = "ssh,write".parse().unwrap()).await;
    assert_eq!(writer.framed("/disk print").await, refused);

    let full = Bench::start_with(|options| options.group = Group::full()).await;
    full.framed(DISK).await.unwrap();

    let nobody = Bench::start_with(|options| options.group = "read,write".parse().unwrap()).await;
    assert_eq!(nobody.client.exec(":put 1").await.status.code(), Some(255), "ssh needs its policy, too");
}

#[tokio::test]
async fn an_address_is_on_a_list_once_and_a_reboot_forgets_those_with_a_timeout() {
    let bench = Bench::start().await;
    let add = "/ip/firewall/address-list add list=rds-csi-fence";
    bench.framed(&format!("{add} address=10.0.0.7 comment=\"rds-csi:c\"")).await.unwrap();
    bench.framed(&format!("{add} address=10.0.0.8/32 timeout=1d")).await.unwrap();
    let again = bench.framed(&format!("{add} address=10.0.0.8")).await;
    assert_eq!(again.unwrap_err(), "failure: already have such entry");
    let nonsense = bench.framed(&format!("{add} address=10.0.0.300")).await;
    assert_eq!(nonsense.unwrap_err(), "invalid value for argument address");
    let soon = bench.run(&format!("{add} address=10.0.0.9 timeout=soon")).await;
    assert_eq!(soon, "invalid value for argument timeout\r\n");

    let what = "/ip/firewall/address-list print as-value proplist=address,dynamic where list=rds-csi-fence";
    let listed = told(&bench, what).await;
    assert_eq!(
        listed,
        json!([
            {".id": "*1", "address": "10.0.0.7", "dynamic": false},
            {".id": "*2", "address": "10.0.0.8", "dynamic": true},
        ])
    );
    bench.simulator.reboot(std::time::Duration::ZERO).await;
    let left = bench.simulator.state().unwrap().addresses;
    assert_eq!(left.len(), 1);
    assert_eq!((left[0].address.as_str(), left[0].comment.as_str()), ("10.0.0.7", "rds-csi:c"));
    bench.framed("/ip/firewall/address-list remove [find address=10.0.0.7]").await.unwrap();
    assert_eq!(bench.simulator.state().unwrap().addresses, []);
}

#[tokio::test]
async fn an_address_leaves_its_list_when_its_time_is_over() {
    let bench = Bench::start().await;
    let add = "/ip/firewall/address-list add list=l address=10.0.0.7 timeout=300ms";
    let count = ":put [:len [/ip/firewall/address-list find list=l]]";
    assert_eq!(bench.framed(&format!("{add}; {count}; :delay 400ms; {count}")).await.unwrap(), "1\r\n0");
}

#[tokio::test]
async fn raw_rules_and_connections_are_found() {
    let bench = Bench::start().await;
    let rule = "chain=prerouting action=drop protocol=tcp dst-port=4420 src-address-list=rds-csi-fence";
    bench.framed(&format!("/ip/firewall/raw add {rule} comment=fence")).await.unwrap();
    let found = format!(":put [:len [/ip/firewall/raw find {rule} disabled=no]]");
    assert_eq!(bench.framed(&found).await.unwrap(), "1");
    bench.framed("/ip/firewall/raw set [find comment=fence] disabled=yes").await.unwrap();
    assert_eq!(bench.framed(&found).await.unwrap(), "0");

    let (host, array): (SocketAddr, SocketAddr) =
        ("10.0.0.7:51000".parse().unwrap(), "10.0.0.1:4420".parse().unwrap());
    bench.simulator.connected(host, array);
    let what = "/ip/firewall/connection print as-value proplist=src-address,tcp-state \
                where dst-address~\":4420\\$\" and src-address~\"^10[.]0[.]0[.]7:\"";
    let seen = told(&bench, what).await;
    assert_eq!(seen, json!([{".id": "*1", "src-address": "10.0.0.7:51000", "tcp-state": "established"}]));
    bench.simulator.disconnected(IpAddr::from([10, 0, 0, 7]));
    assert_eq!(told(&bench, what).await, json!([]));
}

#[tokio::test]
async fn counters_tell_who_still_writes_and_are_no_part_of_an_ordinary_print() {
    let bench = Bench::start().await;
    bench.framed(DISK).await.unwrap();
    let counters = "/disk print as-value proplist=slot,write-ops,write-bytes,in-flight-ops where slot=v";
    let idle =
        json!([{".id": "*1", "slot": "v", "write-ops": 0.0, "write-bytes": 0.0, "in-flight-ops": 0.0}]);
    assert_eq!(told(&bench, counters).await, idle);
    bench.simulator.write(&PoolPath::new("v/disk.img").unwrap(), 7).unwrap();
    assert_eq!(bench.framed(":put [/disk get v write-ops]").await.unwrap(), "1");
    assert_eq!(told(&bench, counters).await[0]["write-bytes"], 8.0);

    assert_eq!(told(&bench, "/disk print detail as-value where slot=v").await[0].get("write-ops"), None);
    assert_eq!(told(&bench, "/disk print stats as-value where slot=v").await[0]["write-ops"], 1.0);
    let pool = told(&bench, "/disk print as-value proplist=slot,write-ops where slot=raid1").await;
    assert_eq!(pool[0].get("write-ops"), None, "what nobody counts is absent, and not 0");
}

#[tokio::test]
async fn copy_from_takes_every_setting_and_a_name_of_its_own() {
    let bench = Bench::start_with(|options| options.dialect.unset = Unset::Empty).await;
    bench.framed(&format!("{DISK} nvme-tcp-server-nqn=nqn.x:v comment=mine")).await.unwrap();
    bench.simulator.write(&PoolPath::new("v/disk.img").unwrap(), 7).unwrap();
    let same = bench.framed("/disk add copy-from=v").await.unwrap_err();
    assert_eq!(same, "failure: already have such file-path", "the file is a setting like others");

    bench.framed("/disk add copy-from=[find slot=v] file-path=/storage-pool/c.img").await.unwrap();
    bench.framed("/disk add copy-from=v file-path=/storage-pool/d.img").await.unwrap();
    let disks = told(
        &bench,
        "/disk print as-value proplist=slot,file-size,nvme-tcp-server-nqn,comment where type=file",
    )
    .await;
    let row = |id: &str, slot: &str| json!({".id": id, "slot": slot, "comment": "mine", "nvme-tcp-server-nqn": "nqn.x:v", "file-size": 1_048_576.0});
    assert_eq!(disks, json!([row("*1", "v"), row("*2", "v-1"), row("*3", "v-2")]));
    let twice = bench.framed("/disk set v nvme-tcp-export=yes; /disk set v-1 nvme-tcp-export=yes").await;
    assert_eq!(twice.unwrap_err(), "failure: already have such nvme-tcp-server-nqn");
}

#[tokio::test]
async fn a_list_of_properties_is_looked_up_before_anything_runs() {
    let bench = Bench::start().await;
    let add = "/disk/btrfs/subvolume add fs=storage-pool name=a";
    let refused = bench.run(&format!("{add}; :put [/disk print as-value proplist=slot,quota]")).await;
    assert_eq!(refused, "input does not match any value of proplist\r\n");
    assert!(bench.simulator.state().unwrap().subvolumes.is_empty());
    let files = told(&bench, "/file print as-value proplist=name,size where type=disk").await;
    assert_eq!(files[0]["name"], "storage-pool");
}
