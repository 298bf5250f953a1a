//! Who is connected, as the kernel lists its TCP sockets in `/proc/net/tcp` and `tcp6`.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::super::Connection;

/// `TCP_ESTABLISHED` in these tables.
const ESTABLISHED: &str = "01";

/// The established connections to these ports.
pub(super) fn established(ports: &[u16]) -> io::Result<Vec<Connection>> {
    let mut connections = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        // A kernel without IPv6 has no second table.
        match fs::read_to_string(table) {
            Ok(text) => connections.extend(text.lines().skip(1).filter_map(|line| read(line, ports))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(connections)
}

fn read(line: &str, ports: &[u16]) -> Option<Connection> {
    let mut columns = line.split_whitespace().skip(1);
    let (local, remote, state) = (columns.next()?, columns.next()?, columns.next()?);
    let connection = Connection { source: socket(remote)?, destination: socket(local)? };
    (state == ESTABLISHED && ports.contains(&connection.destination.port())).then_some(connection)
}

/// `0100007F:1144`: the address in words of the machine's own byte order, the port as a number.
fn socket(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let words = address.as_bytes().chunks(8).map(|word| {
        let word = std::str::from_utf8(word).ok()?;
        Some(u32::from_str_radix(word, 16).ok()?.to_ne_bytes())
    });
    let bytes = words.collect::<Option<Vec<_>>>()?.concat();
    let address = match bytes.len() {
        4 => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        // A host that came by IPv4 to a socket for both is shown as what it is.
        16 => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn established_connections_to_the_ports_are_read_from_the_kernels_table() {
        let lines = [
            "   0: 0100007F:1144 0200000A:D431 01 00000000:00000000 00:00000000 00000000 0 0 1 1 0 20 4 30 10 -1",
            "   1: 0100007F:1144 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1 1 0 20 4 30 10 -1",
            "   2: 0100007F:0016 0200000A:D432 01 00000000:00000000 00:00000000 00000000 0 0 1 1 0 20 4 30 10 -1",
            "   3: 0000000000000000FFFF00000100007F:1144 0000000000000000FFFF00000300000A:D433 01 0 0 0 0 0 0",
        ];
        let told = lines.iter().filter_map(|line| read(line, &[4420]));
        let told: Vec<String> = told.map(|c| format!("{} {}", c.source, c.destination)).collect();
        assert_eq!(told, ["10.0.0.2:54321 127.0.0.1:4420", "10.0.0.3:54323 127.0.0.1:4420"]);
    }
}
