use rds_csi_api::status::chain;

use super::*;
use crate::config::Fencing;

/// Two arrays; the files that they name are there.
const TWO: &str = "
default: rack-1
backends:
  - name: rack-1
    address: 10.0.0.10
    user: rds-csi
    key: FILE
    knownHosts: FILE
    nvme: {address: 10.0.1.10}
    fence: acl@7.21.2
  - name: rack-2
    address: array-2.example
    port: 2222
    user: rds-csi
    key: FILE
    knownHosts: FILE
    pool: fast
    nvme: {address: 10.0.2.10, port: 4421}
    fence: none
    limits: {sessions: 8, lineBytes: 8192, commandTimeoutSeconds: 20}
    topology:
      topology.rds.csi.srvlab.io/rack: 2
";

fn told(text: &str) -> Result<Contents, String> {
    let folder = tempfile::tempdir().unwrap();
    let (path, file) = (folder.path().join("arrays.yaml"), folder.path().join("file"));
    fs::write(&file, "x").unwrap();
    fs::write(&path, text.replace("FILE", file.to_str().unwrap())).unwrap();
    let named = path.display().to_string();
    read(&path).map_err(|error| {
        let error = chain(&error);
        assert!(error.contains(&named), "the file is not named: {error}");
        error
    })
}

#[test]
fn every_field_is_taken_and_what_is_left_out_is_as_the_documents_say() {
    let Contents { standard, others } = told(TWO).unwrap();
    assert_eq!((standard.title.as_str(), standard.pool.as_str()), ("rack-1", "storage-pool"));
    assert_eq!(standard.portal.to_string(), "10.0.1.10:4420");
    let ssh = &standard.ssh;
    assert_eq!((ssh.destination.port, ssh.sessions, ssh.command_timeout), (22, SESSIONS, COMMAND_TIMEOUT));
    assert!(standard.topology.is_empty());
    let other = &others[&"rack-2".parse().unwrap()];
    assert_eq!((other.pool.as_str(), other.portal.to_string().as_str()), ("fast", "10.0.2.10:4421"));
    assert_eq!((other.ssh.destination.port, other.ssh.sessions.get()), (2222, 8));
    assert_eq!((ssh.line_limit, other.ssh.line_limit), (2048, 8192));
    assert_eq!(other.ssh.command_timeout, Duration::from_secs(20));
    assert_eq!(other.topology.to_string(), "topology.rds.csi.srvlab.io/rack=2");
}

#[test]
fn one_array_is_the_default_one() {
    let (alone, _) = TWO.split_once("  - name: rack-2").unwrap();
    assert_eq!(told(&alone.replace("default: rack-1", "")).unwrap().standard.title.as_str(), "rack-1");
}

#[test]
fn a_mistake_is_told_with_its_backend_field_value_and_fix() {
    for (right, wrong, says) in [
        (
            "port: 2222",
            "port: 70000",
            "backend rack-2, field port: port \"70000\" is not valid: give a TCP port",
        ),
        (
            "name: rack-2",
            "name: Rack 2",
            "backend Rack 2, field name: backend \"Rack 2\" is not valid: give 1 to 24",
        ),
        ("name: rack-2", "title: x", "backend number 2, field name: is missing: give 1 to 24"),
        (
            "name: rack-2",
            "name: rack-1",
            "backend rack-1, field name: is that of backend rack-1, too: give each array",
        ),
        (
            "address: array-2.example",
            "adress: x",
            "backend rack-2, field address: is missing: give the array's host",
        ),
        (
            "pool: fast",
            "pol: fast",
            "backend rack-2, field pol: is not known: remove it, or use one of name, address",
        ),
        (
            "pool: fast",
            "pool: /fast",
            "field pool: pool \"/fast\" is not valid: give the name of the btrfs pool",
        ),
        ("pool: fast", "pool: [a]", "backend rack-2, field pool: is a list: give one value"),
        ("fence: none", "fence: maybe", "field fence: fence \"maybe\" is not valid: give none, or acl@"),
        (
            "sessions: 8",
            "sessions: 0",
            "field limits.sessions: number of sessions \"0\" is not valid: give 1 to 1000",
        ),
        (
            "sessions: 8",
            "session: 8",
            "field limits.session: is not known: remove it, or use one of sessions, ",
        ),
        (
            "Seconds: 20",
            "Seconds: 1h",
            "field limits.commandTimeoutSeconds: timeout \"1h\" is not valid: give 1 to 120",
        ),
        (
            "{address: 10.0.2.10, port: 4421}",
            "10.0.2.10",
            "field nvme: is \"10.0.2.10\": give fields with values",
        ),
        (
            "10.0.2.10",
            "array",
            "field nvme.address: address \"array\" is not valid: give an IPv4 or IPv6 address",
        ),
        (
            "rack: 2",
            "rack: {}",
            "field topology.topology.rds.csi.srvlab.io/rack: is a group of fields: give a label's",
        ),
        (
            "rack: 2",
            "rack: a b",
            "field topology: topology \"topology.rds.csi.srvlab.io/rack=a b\" is not valid: give KEY=VALUE",
        ),
        (
            "default: rack-1",
            "default: rack-3",
            "field default: names rack-3, which is no backend of the file: give one of rack-1, rack-2",
        ),
        ("default: rack-1", "", "field default: is missing: name the backend whose volumes have bare ids"),
        (
            "default: rack-1",
            "default: rack-1\nextra: 1",
            "field extra: is not known: remove it, or use one of default",
        ),
        ("key: FILE", "key: /nowhere/key", "backend rack-1, field key: the file /nowhere/key cannot be read"),
        ("default: rack-1", "default: [", "is not YAML"),
    ] {
        let text = TWO.replacen(right, wrong, 1);
        assert_ne!(text, TWO, "{right} is not in the file");
        let error = told(&text).unwrap_err();
        assert!(error.contains(says), "{error}\n  should say\n{says}");
    }
    let empty = told("backends: []").unwrap_err();
    assert!(empty.contains("field backends: is missing: list the arrays"), "{empty}");
}

#[test]
fn one_array_cannot_have_two_names() {
    let twice =
        TWO.replace("array-2.example", "10.0.0.10").replace("port: 2222", "").replace("pool: fast", "");
    let error = told(&twice).unwrap_err();
    assert!(error.contains("backend rack-2, field address: is that of backend rack-1, too"), "{error}");
}

#[test]
fn a_field_that_is_given_twice_is_not_silently_the_later_one() {
    let error = told(&TWO.replace("pool: fast", "pool: fast\n    pool: slow")).unwrap_err();
    assert!(error.contains("is not YAML") && error.contains("pool"), "{error}");
}

#[test]
fn the_example_in_the_documents_is_read_as_it_stands() {
    let documents = include_str!("../../../../docs/configuration.md");
    let (_, example) = documents.split_once("```yaml\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    // Only the files are not there.
    let here = |line: &str| match line.split_once(": /etc/rds-csi/") {
        Some((field, _)) => format!("{field}: FILE\n"),
        None => format!("{line}\n"),
    };
    let Contents { standard, others } = told(&example.lines().map(here).collect::<String>()).unwrap();
    let other = &others[&"rack-2".parse().unwrap()];
    assert_eq!((standard.title.as_str(), standard.fence.to_string()), ("rack-1", "acl@7.21.2".into()));
    assert_eq!(
        (other.pool.as_str(), other.ssh.line_limit, other.fence.clone()),
        ("fast", 4096, Fencing::NONE)
    );
    assert_eq!(other.topology.to_string(), "topology.rds.csi.srvlab.io/rack=2");
}
