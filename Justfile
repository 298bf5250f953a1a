# Every entry point of the project; run them through `./just`, which installs what they need.

set shell := ["bash", "-euo", "pipefail", "-c"]
set positional-arguments

cache := env("RDS_CSI_CACHE", env("XDG_CACHE_HOME", env("HOME") / ".cache") / "rds-csi")
cargo_deny_version := "0.20.2"
cargo_deny := cache / "tools/cargo-deny-" + cargo_deny_version / "bin/cargo-deny"
go_tools := justfile_directory() / "integration/tools"
csi_sanity := cache / "tools/csi-sanity-" + sha256_file(go_tools / "csi-sanity/go.sum")
kubernetes := cache / "tools/kubernetes-" + sha256_file(go_tools / "kubernetes/go.sum")
sidecars := cache / "tools/sidecars-" + sha256_file(go_tools / "sidecars/go.sum")

[private]
default:
    @{{ just_executable() }} --list --unsorted

# Build every program
build:
    cargo build --workspace --bins

# Check the formatting (cargo fmt mends it)
format:
    cargo fmt --all -- --check

# Run clippy; a warning is an error
lint:
    cargo clippy --workspace --all-targets -- -D warnings

# Check licences, sources and banned crates of everything we link
deny: _cargo-deny
    {{ cargo_deny }} --locked check --hide-inclusion-graph bans licenses sources
    {{ cargo_deny }} --locked --manifest-path node-agent/Cargo.toml --config node-agent/deny.toml check --hide-inclusion-graph bans

# Count what the node agent's privileges rest on: crates, lines of its privileged room, unsafe code, licences
audit:
    #!/usr/bin/env bash
    set -euo pipefail
    # One line per crate that is not ours, with its licence; cargo marks repetitions by a star.
    linked() {
        cargo tree --locked --quiet --edges normal --package "$1" --prefix none --format '{p}|{l}' |
            sed 's/ (\*)$//' | sort -u | grep -v '^rds-csi'
    }
    # Without tests, comments and empty lines. The fake is no part of the program.
    lines() {
        find "$@" -name '*.rs' ! -name tests.rs ! -name fake.rs ! -path '*/fake/*' ! -name contract.rs -exec awk '
            FNR == 1 { tests = 0 }
            /^mod tests/ { tests = 1 }
            !tests && !/^[[:space:]]*(\/\/|$)/ { lines++ }
            END { print lines + 0 }' {} +
    }
    unsafe=$({ grep -rEo '\<unsafe[[:space:]]*(\{|(fn|impl|trait|extern)\>)' --include='*.rs' api controller node-agent integration || true; } | wc -l)
    printf '%-46s %5s\n' \
        'crates that the node agent links' "$(linked rds-csi-node-agent | wc -l)" \
        'crates that the controller links' "$(linked rds-csi-controller | wc -l)" \
        'lines of node-agent/src/host, without tests' "$(lines node-agent/src/host node-agent/src/host.rs)" \
        'lines of the node agent, without tests' "$(lines node-agent/src)" \
        'unsafe in our crates (the compiler forbids it)' "$unsafe"
    printf 'licences of what the node agent links:\n'
    linked rds-csi-node-agent | sed 's/.*|//' | sort | uniq -c | sort -rn
    (( unsafe == 0 ))

# Run every test: unit, property, simulator and rig; arguments go to cargo test
test *args: build
    cargo test --workspace "$@"

# Show the main job on microVMs, told as a story
demo *args: build
    cargo run --quiet --bin rds-csi-demo -- "$@"

# Hold the wire contract against upstream's, and both programs against csi-sanity on microVMs (--focus REGEX: some specs)
conformance *args: build (_go-tools "csi-sanity" csi_sanity)
    cargo test --quiet --package rds-csi-api --test wire_contract
    cargo run --quiet --bin rds-csi-conformance -- --csi-sanity "{{ csi_sanity }}/csi-sanity" "$@"

# Run pods on a whole Kubernetes with real kubelets on microVMs (arguments go to the tests), or keep one to try (--keep)
cluster *args: build (_go-tools "kubernetes" kubernetes) (_go-tools "sidecars" sidecars)
    #!/usr/bin/env bash
    set -euo pipefail
    export RDS_CSI_RIG_KUBERNETES="{{ kubernetes }}" RDS_CSI_RIG_SIDECARS="{{ sidecars }}"
    if [[ "${1:-}" == --keep ]]; then
        exec target/debug/rds-csi-cluster "${@:2}"
    fi
    cargo test --workspace --test cluster --test try_it -- --include-ignored "$@"

# Run the controller against a real API server, with a simulated array and made-up agents; arguments go to the tests
kubernetes *args: build (_go-tools "kubernetes" kubernetes)
    RDS_CSI_RIG_KUBERNETES="{{ kubernetes }}" cargo test --workspace --test kubernetes -- --include-ignored "$@"

# Run the RouterOS simulator by hand, to ssh into it and look
simulator *args:
    cargo run --quiet --bin rds-csi-simulator -- "$@"

# Count and time what the controller sends to a simulated array; --idle also watches an idle minute
bench-array *args:
    cargo build --quiet --profile measured --workspace --bins
    cargo run --quiet --profile measured --bin rds-csi-bench-array -- "$@"

# Time a burst of attachments through a real API server, and look at what many leave in the controller's memory
bench-attach: build (_go-tools "kubernetes" kubernetes)
    RDS_CSI_RIG_KUBERNETES="{{ kubernetes }}" cargo test --workspace --test kubernetes -- --include-ignored attachments_ --nocapture

# Time what the node agent adds to the system calls that it makes, on microVMs, and count the programs that it runs
bench-node:
    cargo build --quiet --profile measured --workspace --bins
    cargo run --quiet --profile measured --bin rds-csi-bench-node

# Boot a rig to play with (Ctrl-C ends it), or run a command in one: run DIRECTORY/w1 'COMMAND'
rig *args: build
    cargo run --quiet --bin rds-csi-rig -- "$@"

# Do what CI does: format, lint, deny, audit, test, conformance, kubernetes, cluster, demo, and say what took how long
ci:
    #!/usr/bin/env bash
    set -uo pipefail
    steps=(format lint deny audit test conformance kubernetes cluster demo)
    declare -A result
    began=$SECONDS
    status=0
    for step in "${steps[@]}"; do
        printf '\n\033[1m==> %s\033[0m\n' "$step"
        step_began=$SECONDS
        {{ just_executable() }} "$step" || status=$?
        took=$(( SECONDS - step_began ))
        result[$step]="$( (( status == 0 )) && echo passed || echo FAILED ) $took"
        if (( status != 0 )); then break; fi
    done
    printf '\n%-11s  %-7s  %6s\n' step result time
    for step in "${steps[@]}" total; do
        read -r outcome took <<<"${result[$step]:-"not-run 0"}"
        if [[ $step == total ]]; then
            outcome=$( (( status == 0 )) && echo passed || echo FAILED ); took=$(( SECONDS - began ))
        fi
        printf '%-11s  %-7s  %3dm%02ds\n' "$step" "$outcome" $(( took / 60 )) $(( took % 60 ))
    done
    exit "$status"

[private]
_cargo-deny:
    #!/usr/bin/env bash
    set -euo pipefail
    if [[ ! -x "{{ cargo_deny }}" ]]; then
        echo "building cargo-deny {{ cargo_deny_version }} (about three minutes, once per machine)" >&2
        mkdir -p "{{ cache }}/tools"
        flock "{{ cache }}/tools/lock" cargo install --quiet --locked cargo-deny \
            --version "{{ cargo_deny_version }}" --root "{{ cache }}/tools/cargo-deny-{{ cargo_deny_version }}"
    fi

[private]
_go-tools module out:
    integration/tools/build "{{ module }}" "{{ out }}"
