//! Our text of others' contracts, CSI and kubelet's registration of plugins, against their own: every message, field, enum
//! value and method that we have must be the same there, or a sidecar would read something else than we wrote.
//!
//! Upstream's text comes from its Go module, through the Go toolchain's module cache.

#![allow(clippy::unwrap_used, reason = "a test's own functions may fail as its tests do")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use protox::prost_reflect::{DescriptorPool, EnumDescriptor, ExtensionDescriptor, MessageDescriptor, Value};

const UPSTREAM: &str = "github.com/container-storage-interface/spec";

/// kubelet's contracts.
const KUBELET: &str = "k8s.io/kubelet";

/// What CSI 1.13 took out and today's sidecars still use: compared with 1.12.
const VOLUME_CONDITION: [&str; 6] = [
    "message csi.v1.VolumeCondition",
    "field csi.v1.ListVolumesResponse.VolumeStatus.volume_condition",
    "field csi.v1.ControllerGetVolumeResponse.VolumeStatus.volume_condition",
    "field csi.v1.NodeGetVolumeStatsResponse.volume_condition",
    "value csi.v1.ControllerServiceCapability.RPC.VOLUME_CONDITION",
    "value csi.v1.NodeServiceCapability.RPC.VOLUME_CONDITION",
];

/// Every fact of a contract that is visible on the wire, by its name.
type Facts = BTreeMap<String, String>;

#[test]
fn what_we_write_is_what_upstream_reads() {
    let ours = facts(&compile(&PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../proto"))));
    let current = facts(&compile(&upstream("v1.13.0")));
    let previous = facts(&compile(&upstream("v1.12.0")));
    assert!(ours.len() > 400, "the comparison found too little to compare: {}", ours.len());

    for (name, fact) in &ours {
        let of_volume_condition = VOLUME_CONDITION.iter().any(|old| name.starts_with(old))
            || name.starts_with("field csi.v1.VolumeCondition.");
        let upstream = if of_volume_condition { &previous } else { &current };
        assert_eq!(upstream.get(name), Some(fact), "{name}");
    }
}

#[test]
fn nothing_is_missing_from_the_services_and_messages_that_we_have() {
    let ours = facts(&compile(&PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../proto"))));
    for version in ["v1.13.0", "v1.12.0"] {
        for (name, fact) in facts(&compile(&upstream(version))) {
            let owner = name
                .split_once(' ')
                .and_then(|(_, path)| path.rsplit_once('.'))
                .map_or("", |(owner, _)| owner);
            let kinds = ["message", "enum", "service"];
            let have_owner = kinds.iter().any(|kind| ours.contains_key(&format!("{kind} {owner}")));
            let added_later = version == "v1.12.0" && ours.contains_key(&name);
            if have_owner && !added_later {
                assert_eq!(ours.get(&name), Some(&fact), "{name} of {version}");
            }
        }
    }
}

/// A message that only these services use may be missing; one that ours use cannot, since a field names its type.
#[test]
fn no_service_is_missing_but_those_that_are_not_served() {
    let services = |folder| -> Vec<String> {
        compile(&folder).services().map(|service| service.full_name().to_owned()).collect()
    };
    let ours = services(PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../proto")));
    let mut missing = services(upstream("v1.13.0"));
    missing.retain(|service| !ours.contains(service));
    assert_eq!(missing, ["csi.v1.GroupController", "csi.v1.SnapshotMetadata"]);
}

#[test]
fn kubelet_registers_plugins_by_the_contract_that_we_have() {
    let ours = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../proto"));
    let theirs = module(KUBELET, "v0.36.3").join("pkg/apis/pluginregistration/v1");
    let ours = described(&compile_file(&ours, "plugin_registration.proto"), "pluginregistration", None);
    assert_eq!(ours.len(), 13, "{ours:#?}");
    assert_eq!(ours, described(&compile_file(&theirs, "api.proto"), "pluginregistration", None));
}

/// The folder of upstream's `csi.proto` of that version.
fn upstream(version: &str) -> PathBuf {
    module(UPSTREAM, version)
}

/// The folder of a Go module.
fn module(path: &str, version: &str) -> PathBuf {
    let output = Command::new("go")
        .args(["mod", "download", "-json", &format!("{path}@{version}")])
        .current_dir(std::env::temp_dir())
        .output()
        .expect("this test needs the Go toolchain: run it by `./just test`, which installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    answer["Dir"].as_str().unwrap().into()
}

fn compile(folder: &PathBuf) -> DescriptorPool {
    compile_file(folder, "csi.proto")
}

fn compile_file(folder: &PathBuf, name: &str) -> DescriptorPool {
    let mut compiler = protox::Compiler::new([folder]).unwrap();
    compiler.include_imports(true).open_file(name).unwrap();
    DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice()).unwrap()
}

fn facts(pool: &DescriptorPool) -> Facts {
    described(pool, "csi.v1", pool.get_extension_by_name("csi.v1.csi_secret").as_ref())
}

/// All that a package says; `secret` is the option that marks secrets in it.
fn described(pool: &DescriptorPool, package: &str, secret: Option<&ExtensionDescriptor>) -> Facts {
    let is_its = |found: &str| found == package;
    let mut facts = Facts::new();
    for message in pool.all_messages().filter(|message| is_its(message.package_name())) {
        facts.insert(format!("message {}", message.full_name()), String::new());
        for field in message.fields() {
            let kind = match field.kind() {
                protox::prost_reflect::Kind::Message(inner) if inner.is_map_entry() => map_type(&inner),
                kind => format!("{kind:?}"),
            };
            let oneof = field.containing_oneof().map(|oneof| oneof.name().to_owned());
            let is_secret =
                secret.is_some_and(|secret| *field.options().get_extension(secret) == Value::Bool(true));
            let (number, label, packed) = (field.number(), field.cardinality(), field.is_packed());
            let fact = format!("{number} {label:?} {kind} {oneof:?} packed={packed} secret={is_secret}");
            facts.insert(format!("field {}", field.full_name()), fact);
        }
    }
    for all in pool.all_enums().filter(|all| is_its(all.package_name())) {
        facts.insert(format!("enum {}", all.full_name()), String::new());
        facts.extend(values(&all));
    }
    for service in pool.services().filter(|service| is_its(service.package_name())) {
        facts.insert(format!("service {}", service.full_name()), String::new());
        for method in service.methods() {
            let streams = (method.is_client_streaming(), method.is_server_streaming());
            let fact = format!("{} {} {streams:?}", method.input().full_name(), method.output().full_name());
            facts.insert(format!("method {}", method.full_name()), fact);
        }
    }
    facts
}

fn values(all: &EnumDescriptor) -> Facts {
    // A value's own name is a sibling of its enum's, as in C++.
    let scope = all.full_name().rsplit_once('.').map_or("", |(scope, _)| scope);
    all.values()
        .map(|value| (format!("value {scope}.{}", value.name()), value.number().to_string()))
        .collect()
}

fn map_type(entry: &MessageDescriptor) -> String {
    format!("map {:?} {:?}", entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind())
}
