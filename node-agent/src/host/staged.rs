//! What kubelet has written down: the volumes that it staged and has not unstaged since.
//!
//! Beside each staging path it keeps a `vol_data.json` from before NodeStageVolume until NodeUnstageVolume has succeeded
//! (Kubernetes' pkg/volume/csi): below `plugins/kubernetes.io/csi` in `<driver>/<hash>` or, before 1.24, `pv/<name>`, and of a
//! raw block volume in `volumeDevices/<name>/data`.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rds_csi_api::DRIVER_NAME;
use serde::Deserialize;

use super::{Error, KubeletDir};

const FILE: &str = "vol_data.json";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    driver_name: String,
    volume_handle: String,
}

/// The handles of this driver's volumes that kubelet holds for staged, whoever staged them. A file that cannot be read is an
/// error, since it may be about any volume.
pub fn staged(kubelet: &KubeletDir) -> Result<BTreeSet<String>, Error> {
    let mut handles = BTreeSet::new();
    for kind in entries(&kubelet.as_path().join("plugins/kubernetes.io/csi"))? {
        let of_blocks = kind.ends_with("volumeDevices");
        for volume in entries(&kind)? {
            let data = match volume.file_name().and_then(|name| name.to_str()) {
                // Of all block volumes, and not of one that has this name. What is mounted there is no business of ours.
                Some("staging" | "publish") if of_blocks => continue,
                _ if of_blocks => volume.join("data"),
                _ => volume,
            };
            handles.extend(read(&data.join(FILE))?);
        }
    }
    Ok(handles)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let listed = match fs::read_dir(directory) {
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        listed => listed.and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect()),
    };
    listed.map_err(Error::system("list", directory))
}

/// The handle, if the volume is one of this driver's.
fn read(path: &Path) -> Result<Option<String>, Error> {
    let text = match fs::read(path) {
        Err(error) if is_absent(&error) => return Ok(None),
        text => text.map_err(Error::system("read", path))?,
    };
    let written: Written =
        serde_json::from_slice(&text).map_err(io::Error::from).map_err(Error::system("read", path))?;
    Ok((written.driver_name == DRIVER_NAME).then_some(written.volume_handle))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubelet(files: &[(&str, &str)]) -> (tempfile::TempDir, KubeletDir) {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join("plugins/kubernetes.io/csi").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let kubelet = KubeletDir::open(folder.path()).unwrap();
        (folder, kubelet)
    }

    fn data(driver: &str, handle: &str) -> String {
        format!(
            r#"{{"attachmentID":"csi-0","driverName":"{driver}","specVolID":"pv","volumeHandle":"{handle}"}}"#
        )
    }

    #[test]
    fn volumes_of_every_kind_are_found_and_other_drivers_are_not_ours() {
        let ours = |handle| data(DRIVER_NAME, handle);
        let (_folder, kubelet) = kubelet(&[
            ("rds.csi.srvlab.io/0a1b/vol_data.json", &ours("pvc-a")),
            ("rds.csi.srvlab.io/0a1b/globalmount/vol_data.json", "data of a pod"),
            ("pv/pv-b/vol_data.json", &ours("pvc-b")),
            ("volumeDevices/pv-c/data/vol_data.json", &ours("rack-2/pvc-c")),
            ("volumeDevices/staging/pv-c/vol_data.json", "not kubelet's"),
            ("volumeDevices/publish/pv-c/pod", ""),
            ("other.driver/0a1b/vol_data.json", &data("other.driver", "pvc-d")),
        ]);
        assert_eq!(staged(&kubelet).unwrap(), ["pvc-a", "pvc-b", "rack-2/pvc-c"].map(String::from).into());
    }

    #[test]
    fn a_kubelet_without_volumes_has_none_and_a_file_cut_short_is_no_answer() {
        let (_folder, empty) = kubelet(&[]);
        assert_eq!(staged(&empty).unwrap(), BTreeSet::new());
        let (_folder, cut) = kubelet(&[("pv/pv-b/vol_data.json", "{\"driverName\":")]);
        assert!(staged(&cut).unwrap_err().to_string().contains("pv-b/vol_data.json"));
    }
}
