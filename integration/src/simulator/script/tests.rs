//! The language by examples: what a line prints, and what it is refused with.

mod functions;

use std::fmt::Write;
use std::sync::Arc;

use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::super::backend::memory::Memory;
use super::super::console::Console;
use super::super::device::{Device, Dialect, Group, Handicaps, Lists, Unset, User};
use super::super::version::Version;
use super::Numbers;

/// What one line prints on a device with an empty pool of 1 GiB, without the last line end.
fn run(line: &str) -> String {
    run_on(Version::new(7, 21), &[line])
}

fn run_on(version: Version, lines: &[&str]) -> String {
    let (numbers, unset, lists) = (Numbers::Floats, Unset::Absent, Lists::Text);
    let dialect = Dialect { version, numbers, unset, lists };
    let user = User { name: "csi".to_owned(), group: Group::least() };
    let device = Device::new(Box::new(Memory::new(1 << 30)), "pool", dialect, 20, user).unwrap();
    let mut console = Console::new(Arc::new(device), usize::MAX);
    let run = |line: &&str| console.run(line, Handicaps::default(), None, CancellationToken::new()).unwrap();
    let printed: String = lines.iter().map(run).collect();
    printed.strip_suffix("\r\n").unwrap_or(&printed).to_owned()
}

fn check(table: &[(&str, &str)]) {
    for (line, expected) in table {
        assert_eq!(run(line), *expected, "{line}");
    }
}

#[test]
fn expressions() {
    check(&[
        (":put (1 + 2 * 3)", "7"),
        (":put ((1 + 2) * 3)", "9"),
        (":put (7 / 2 - 1)", "2"),
        (":put (7 % 4)", "3"),
        (":put (-5 + 2)", "-3"),
        (":put 0x10", "16"),
        (r#":put ("a" . "b" . 3)"#, "ab3"),
        (r#":put ("n=" . 1 + 1)"#, "n=2"),
        (":put (1 < 2 && 2 <= 2)", "true"),
        (":put (1 > 2 or 2 >= 2)", "true"),
        (":put (1 = 2 || !(2 != 2))", "true"),
        (":put (true and not false)", "true"),
        (r#":put ("5" = 5)"#, "true"),
        (r#":put ("abc" ~ "^a.c\$")"#, "true"),
        (r#":put ("abc" ~ "x")"#, "false"),
        (":put (2 in {1;2;3})", "true"),
        (r#":put ({"a"=1;"b"=2}->"b")"#, "2"),
        (":put ({10;20;30}->1)", "20"),
        (r#":put ({10;{"a"=20}}->1->"a")"#, "20"),
        (r#":local n 1; :put ({10;{"a"=20}}->$n->a + 1)"#, "21"),
        (":put ({10}->)", "syntax error (line 1 column 13)"),
        (":put (1 / 0)", "division by zero or overflow"),
        (r#":put ("a" + 1)"#, "cannot calculate with str and num"),
        (r#":if ("maybe") do={}"#, "conditional not boolean"),
    ]);
}

#[test]
fn strings() {
    check(&[
        (r#":put "a \"b\" \\ \$c \? \_d""#, r#"a "b" \ $c ?  d"#),
        (r#":put "\41\C3\BC""#, "Aü"),
        (r#":put "one\r\ntwo""#, "one\r\ntwo"),
        (r#":local x 5; :put "x is $x!""#, "x is 5!"),
        (r#":put "sum $(1 + 2), name $[/system/identity get name]""#, "sum 3, name rds"),
        (r#":put "; [:error no] { } ( ) #""#, "; [:error no] { } ( ) #"),
        (r#":put "\q""#, "syntax error (line 1 column 8)"),
        (r#":put "\4""#, "syntax error (line 1 column 8)"),
        (r#":put "open"#, "syntax error (line 1 column 11)"),
        (":put \"a\nb\"", "syntax error (line 1 column 8)"),
        (":put \"a\u{7}b\"", "syntax error (line 1 column 8)"),
    ]);
}

#[test]
fn variables_and_scopes() {
    check(&[
        (":local x 5; :put $x", "5"),
        (":local x 5; { :local x 6; :put $x }; :put $x", "6\r\n5"),
        (":local x 5; { :set x 6 }; :put $x", "6"),
        (":local x; :put [:typeof $x]", "nothing"),
        (":put [:typeof $unknown]", "nothing"),
        (":set nowhere 1", "variable nowhere not defined"),
        (r#":local x {1;"two";yes}; :put [:len $x]; :put $x"#, "3\r\n1;two;true"),
        (r#":local x {"a"=1;b=2}; :put ($x->"a")"#, "1"),
    ]);
}

#[test]
fn control_flow() {
    check(&[
        (":if (1 = 1) do={:put yes} else={:put no}", "true"),
        (r#":if (1 = 2) do={:put "then"} else={:put "else"}"#, "else"),
        (r#":if (1 = 2) do={:put "then"}"#, ""),
        (":foreach x in={1;2;3} do={:put ($x * 2)}", "2\r\n4\r\n6"),
        (r#":foreach k,v in={"a"=1;"b"=2} do={:put ($k . $v)}"#, "a1\r\nb2"),
        (":local n 0; :while ($n < 3) do={:set n ($n + 1)}; :put $n", "3"),
        (r#":put "before"; :return 1; :put "after""#, "before"),
        (":delay 1ms; :put 1", "1"),
        ("# a remark", ""),
        ("", ""),
        (";;:put 1;", "1"),
    ]);
}

#[test]
fn errors_that_happen_can_be_caught_and_stop_what_follows() {
    check(&[
        (r#":put 1; :error "stop"; :put 2"#, "1\r\nstop"),
        (r#":do {:error "stop"; :put 1} on-error={:put "caught"}; :put 2"#, "caught\r\n2"),
        (r#":onerror e in={:error "stop"} do={:put ("ERR " . $e)}"#, "ERR stop"),
        (r#":onerror e in={:put 1} do={:put "never"}; :put $e"#, "1\r\n"),
        (r":onerror e in={/disk get [find slot=none] size} do={:put $e}", "no such item"),
        (r#":onerror e in={:onerror f in={:error "in"} do={:error "out $f"}} do={:put $e}"#, "out in"),
        (r#":do {:do {:error "in"}} on-error={:put "caught"}"#, "caught"),
    ]);
}

#[test]
fn errors_of_writing_run_nothing_and_cannot_be_caught() {
    check(&[
        (":put 1; :nonsense", "bad command name :nonsense (line 1 column 9)"),
        (":do {/nonsense} on-error={:put 1}", "bad command name nonsense (line 1 column 7)"),
        (":put 1 2", "expected end of command (line 1 column 8)"),
        ("/disk print sideways", "expected end of command (line 1 column 13)"),
        ("/disk add slot=a slot=b", "expected end of command (line 1 column 18)"),
        ("/disk find quota=1", "expected end of command (line 1 column 12)"),
        ("/disk get [find] quota", "input does not match any value of value-name"),
        ("/disk add nvme-tcp-server-port=70000", "invalid value for argument nvme-tcp-server-port"),
        ("/disk add nvme-tcp-export=maybe", "invalid value for argument nvme-tcp-export"),
        ("/disk set", "syntax error (line 1 column 10)"),
        ("/disk add slot=", "syntax error (line 1 column 16)"),
        (":put [/disk find", "syntax error (line 1 column 17)"),
        (":if (1 = 1) do={:put 1", "syntax error (line 1 column 23)"),
        (":put 1 }", "syntax error (line 1 column 8)"),
        (":put (1 + )", "syntax error (line 1 column 11)"),
        (":put 1\r\n", "syntax error (line 1 column 7)"),
    ]);
}

#[test]
fn computed_values_are_checked_when_they_are_used() {
    check(&[
        (
            r#":onerror e in={/disk add type=file slot=a file-path=/pool/a file-size=("x" . 1)} do={:put $e}"#,
            "invalid value for argument file-size",
        ),
        (
            ":local size 1M; /disk add type=file slot=a file-path=/pool/a file-size=$size; :put [/disk get a file-size]",
            "1048576",
        ),
    ]);
}

#[test]
fn functions() {
    check(&[
        (r#":put [:len "four"]"#, "4"),
        (":put [:len {1;2}]", "2"),
        (":put [:len [/disk find slot=none]]", "0"),
        (":put [:len $unset]", "0"),
        (r#":put [:pick "abcdef" 1 3]"#, "bc"),
        (r#":put [:pick "abcdef" 2]"#, "c"),
        (r#":put [:pick "abc" 1 99]"#, "bc"),
        (":put [:pick {1;2;3} 1]", "2"),
        (":put [:pick {1;2;3} 1 3]", "2;3"),
        (r#":put [:find "hello" "l"]"#, "2"),
        (r#":put [:find "hello" "l" 2]"#, "3"),
        (r#":put [:typeof [:find "hello" "z"]]"#, "nothing"),
        (r#":put [:typeof [:tonum "12"]]"#, "num"),
        (r#":put [:typeof [:tonum "12x"]]"#, "nothing"),
        (":put [:typeof [:tostr 12]]", "str"),
        (":put [:typeof true]", "bool"),
        (":put [:typeof {1}]", "array"),
        (":put [:typeof ([/disk find]->0)]", "id"),
        (":put [:len]", "0"),
        (":put [:nothing]", ""),
        (":put [:len 1 2]", "expected end of command (line 1 column 14)"),
    ]);
}

#[test]
fn json() {
    check(&[
        (":put [:serialize to=json {1;true;\"x\"}]", r#"[1.000000,true,"x"]"#),
        (r#":put [:serialize to=json {"a"=1;"b"={2;3}}]"#, r#"{"a":1.000000,"b":[2.000000,3.000000]}"#),
        (r#":put [:serialize to=json {"say \"hi\"\\\n"}]"#, r#"["say \"hi\"\\\n"]"#),
        (r#":put [:serialize to=json {"007"}]"#, "[7.000000]"),
        (r#":put [:serialize to=json options=json.no-string-conversion {"007"}]"#, r#"["007"]"#),
        (r#":put [:serialize {"007"} options=json.no-string-conversion to=json]"#, r#"["007"]"#),
        (":put [:serialize to=json [/disk find slot=none]]", "[]"),
        (":put [:serialize to=json value={1}]", "[1.000000]"),
        (":put [:serialize {1}]", "syntax error (line 1 column 21)"),
        (":put [:serialize to=yaml {1}]", "input does not match any value of to"),
        (":put [:serialize to=json options=json.pretty {1}]", "input does not match any value of options"),
    ]);
    let serialize = ":put [:serialize to=json options=json.no-string-conversion {1}]";
    let refused = run_on(Version::new(7, 15), &[serialize]);
    assert_eq!(refused, "expected end of command (line 1 column 26)");
}

#[test]
fn conditions() {
    const MAKE: &str = "/disk add type=file slot=a file-path=/pool/a file-size=1M comment=\"x y\"; \
                        /disk add type=file slot=b file-path=/pool/b file-size=2M nvme-tcp-export=yes; \
                        :foreach d in=[";
    const SHOW: &str = "] do={:put [/disk get $d slot]}";
    let table = [
        ("/disk find slot=a", "a"),
        ("/disk find where slot=\"a\"", "a"),
        ("/disk find type=file slot!=a", "b"),
        ("/disk find slot=a or slot=b", "a\r\nb"),
        ("/disk find type=file and !(slot=a)", "b"),
        ("/disk find (slot=a || slot=b) && nvme-tcp-export=yes", "b"),
        ("/disk find nvme-tcp-export", "b"),
        ("/disk find file-size>1048576", "b"),
        ("/disk find file-path~\"^/pool/[ab]\\$\" file-size<=1048576", "a"),
        ("/disk find comment", "a"),
        ("/disk find comment=\"x y\"", "a"),
        ("/disk find slot=[:pick \"ab\" 1]", "b"),
        ("/disk find slot=(\"a\" . \"\")", "a"),
        ("/disk find where", "expected end of command (line 1 column 184)"),
    ];
    for (find, expected) in table {
        let script = format!("{MAKE}{find}{SHOW}");
        assert_eq!(run(&script), expected, "{find}");
    }
}

#[test]
fn a_variable_named_like_a_property_is_the_property() {
    let make = "/disk add type=file slot=a file-path=/pool/a file-size=1M";
    let trap = ":local slot \"none\"; :put [:len [/disk find slot=$slot]]";
    assert_eq!(run_on(Version::new(7, 21), &[make, trap]), "2", "the pool and the disk: every one");
}

#[test]
fn menus_are_entered_and_paths_written_either_way() {
    let lines = ["/disk/btrfs", "subvolume", "add fs=pool name=a", "/disk btrfs subvolume print count-only"];
    assert_eq!(run_on(Version::new(7, 21), &lines), "1");
    check(&[
        ("/disk/btrfs/subvolume/add fs=pool name=a; :put [/disk/btrfs subvolume/find name=a]", "*100"),
        ("/disk; :put [:len [find]]", "1"),
        ("/disk/btrfs/filesystem print count-only", "1"),
        ("/disk/btrfs find", "bad command name find (line 1 column 13)"),
        (":put [/disk/btrfs]", "syntax error (line 1 column 18)"),
    ]);
}

#[test]
fn items_are_named_by_id_list_or_name() {
    let make = "/disk add type=file slot=a file-path=/pool/a file-size=1M; ";
    let table = [
        ("/disk set a comment=one; :put [/disk get a comment]", "one"),
        ("/disk set numbers=[find slot=a] comment=one; :put [/disk get *1 comment]", "one"),
        ("/disk set *99 comment=one", "no such item"),
        ("/disk remove [find slot=none]; :put 1", "1"),
        ("/disk remove {\"a\"}; :put [/disk print count-only where type=file]", "0\r\n0"),
        (":put [/disk get [find] slot]", "invalid internal item number"),
        (":put ([/disk get a]->\"slot\")", "a"),
        (":put [/disk get a value-name=slot]", "a"),
        (
            ":put [/disk print as-value proplist=slot,file-size where type=file]",
            ".id=*1;slot=a;file-size=1048576",
        ),
        ("/system/identity set name=box; :put [/system/identity get name]", "box"),
        (":put [/ip/service get [find name=ssh] max-sessions]", "20"),
        (":put [:pick [/system/package get [find name=rose-storage] version] 0 4]", "7.21"),
    ];
    for (line, expected) in table {
        assert_eq!(run(&format!("{make}{line}")), expected, "{line}");
    }
}

/// The only way for a value from outside into a script.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for byte in text.bytes() {
        let _ = match byte {
            b'"' | b'\\' | b'$' | b'?' => write!(quoted, "\\{}", char::from(byte)),
            b' '..=b'~' => write!(quoted, "{}", char::from(byte)),
            _ => write!(quoted, "\\{byte:02X}"),
        };
    }
    quoted + "\""
}

proptest! {
    #[test]
    fn whatever_is_quoted_comes_out_as_it_was(text in any::<String>()) {
        prop_assert_eq!(run(&format!(":put ({} . \"|\")", quoted(&text))), format!("{text}|"));
    }

    #[test]
    fn no_nesting_makes_the_console_panic(
        opening in prop::sample::select(vec![
            "[", "(", "{", "!", "-", ":put ", ":do {", "{:put (", "$f a=[", "\"$(", "1 . ", "$x->", "[:len (", "slot=(",
            "/disk find !(", "[find slot=",
        ]),
        times in 0..4096_usize,
    ) {
        run(&opening.repeat(times));
        run(&format!(":put ({}1)", opening.repeat(times)));
        run(&format!("/disk find {}", opening.repeat(times)));
    }

    #[test]
    fn no_line_makes_the_console_panic(line in any::<String>()) {
        run(&line);
    }

    #[test]
    fn no_line_of_the_languages_own_pieces_makes_the_console_panic(
        pieces in proptest::collection::vec(
            prop::sample::select(vec![
                ":put ", ":if ", ":local x ", ":len ", ":pick ", ":serialize to=json ", ":error ", "/disk ", "find ",
                "get ", "print ", "as-value ", "where ", "slot=", "do={", "else={", "in={", "}", "[", "]", "(", ")", "{",
                "\"", "\\", "$x", "$", "->", " . ", " = ", "~", "!", "-", "1", "a", ";", " ", "ü",
            ]),
            0..24,
        ),
    ) {
        run(&pieces.concat());
    }
}
