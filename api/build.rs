//! Compiles the contracts without a system `protoc`, and sees to it that no secret can be printed.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, error, fs};

use protox::prost_reflect::{DescriptorPool, FieldDescriptor, MessageDescriptor, Value};

fn main() -> Result<(), Box<dyn error::Error>> {
    println!("cargo::rerun-if-changed=../proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut compiler = protox::Compiler::new(["../proto"])?;
    compiler.include_imports(true).open_file("csi.proto")?;
    let pool = DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice())?;
    let secretive: Vec<_> = pool
        .all_messages()
        .filter(|message| message.fields().any(|field| is_secret(&pool, &field)))
        .collect();
    tonic_prost_build::configure()
        .skip_debug(secretive.iter().map(|message| format!(".{}", message.full_name())))
        .compile_fds(compiler.file_descriptor_set())?;
    fs::write(out.join("redacted.rs"), redacting_debug(&pool, &secretive)?)?;

    for contract in ["node_agent.proto", "plugin_registration.proto"] {
        tonic_prost_build::configure().compile_fds(protox::compile([contract], ["../proto"])?)?;
    }
    Ok(())
}

fn is_secret(pool: &DescriptorPool, field: &FieldDescriptor) -> bool {
    pool.get_extension_by_name("csi.v1.csi_secret")
        .is_some_and(|mark| *field.options().get_extension(&mark) == Value::Bool(true))
}

/// `Debug` for the messages that carry secrets: every field as usual, of a secret only how many entries it has.
fn redacting_debug(pool: &DescriptorPool, messages: &[MessageDescriptor]) -> Result<String, std::fmt::Error> {
    let mut code = String::new();
    for message in messages {
        let name = message.name();
        writeln!(code, "impl ::core::fmt::Debug for {name} {{")?;
        writeln!(code, "    fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {{")?;
        write!(code, "        f.debug_struct(\"{name}\")")?;
        for field in message.fields() {
            let field_name = field.name();
            if is_secret(pool, &field) {
                write!(
                    code,
                    ".field(\"{field_name}\", &::core::format_args!(\"<{{}} redacted>\", self.{field_name}.len()))"
                )?;
            } else {
                write!(code, ".field(\"{field_name}\", &self.{field_name})")?;
            }
        }
        writeln!(code, ".finish()\n    }}\n}}")?;
    }
    Ok(code)
}
