//! Functions that scripts define themselves.

use super::{check, run, run_on};
use crate::simulator::version::Version;

#[test]
fn a_function_takes_arguments_by_name_and_by_position_and_returns_a_value() {
    check(&[
        (r":local add do={:return ($a + $b)}; :put [$add a=6 b=2]", "8"),
        (r#":local say do={:put "$1, $2 and $who"}; $say "one" 2 who=three"#, "one, 2 and three"),
        (r#":local say do={:put $1}; $say who=named "first""#, "first"),
        (r#":local twice do={:return ($1 . $1)}; :put ([$twice "ab"] . 7)"#, "abab7"),
        (r#":local twice do={:return ($1 . $1)}; :put "<$[$twice 1]>""#, "<11>"),
        (r#":local f do={:put "ran"}; :put [:typeof [$f]]"#, "ran\r\nnothing"),
        (":local f do={}; $f; :put 1", "1"),
        (r":local f do={:put [:typeof $x]; :put [:len $x]}; $f y=1", "nothing\r\n0"),
        (":local f do={:put [:len $list]}; $f list={1;2;3}", "3"),
        (":local f do={:put $x}; $f x=[:len \"four\"]; $f x=(1 + 1)", "4\r\n2"),
        (":local f do={:put 1}; :put [:typeof $f]", "array"),
    ]);
}

#[test]
fn return_ends_the_function_and_nothing_around_it() {
    check(&[
        (r#":local f do={:return 1; :put "never"}; :put [$f]; :put "on""#, "1\r\non"),
        (r":local f do={:foreach x in={1;2;3} do={:if ($x = 2) do={:return $x}}; :return 9}; :put [$f]", "2"),
        (r#":local f do={:onerror e in={:return "in"} do={:return "caught"}}; :put [$f]"#, "in"),
    ]);
}

#[test]
fn a_function_knows_no_variable_of_its_caller() {
    check(&[
        (r":local x 5; :local f do={:put [:typeof $x]}; $f", "nothing"),
        (r":local x 5; :local f do={:local x 6}; $f; :put $x", "5"),
        (r":local x 5; :local f do={:set x 6}; $f; :put $x", "variable x not defined"),
        (r":local x 5; :local f do={:put $x}; $f x=$x", "5"),
        (r":local g do={:put 1}; :local f do={$g}; $f", "variable g is no function"),
        (r":local g do={:return 2}; :local f do={:return [$g]}; :put [$f g=$g]", "2"),
    ]);
}

#[test]
fn an_error_in_a_function_is_its_callers() {
    check(&[
        (r#":local f do={:error "stop"}; $f; :put "never""#, "stop"),
        (r#":local f do={:error "stop"}; :onerror e in={$f} do={:put "ERR $e"}; :put 2"#, "ERR stop\r\n2"),
        (r#":local f do={:error "stop"}; :do {:put [$f]} on-error={:put "caught"}"#, "caught"),
        (r":local f do={/disk get nowhere size}; :onerror e in={:local x [$f]} do={:put $e}", "no such item"),
        (
            r#":local f do={:onerror e in={:error "in"} do={:error "out $e"}}; :onerror e in={$f} do={:put $e}"#,
            "out in",
        ),
        (":local x 5; $x", "variable x is no function"),
        ("$nobody a=1", "variable nobody is no function"),
    ]);
}

#[test]
fn a_function_is_read_where_it_is_defined() {
    check(&[
        (
            r#":put "before"; :local f do={/disk frobnicate}"#,
            "bad command name frobnicate (line 1 column 35)",
        ),
        (":local f do={:put 1", "syntax error (line 1 column 20)"),
        (":local f do={:put 1}; $f a=", "syntax error (line 1 column 28)"),
        (":local f do={:put 1}; :put [$f", "syntax error (line 1 column 31)"),
        ("/disk; :local f do={:return [:len [find]]}; :put [$f]", "1"),
    ]);
}

#[test]
fn a_function_works_on_the_menus() {
    let make =
        r#":local make do={/disk add type=file slot=$name file-path=("/pool/" . $name) file-size=$size;
        :return [/disk get $name file-size]}; "#
            .replace('\n', " ");
    assert_eq!(run(&format!("{make}:put [$make name=\"a\" size=1024]; $make name=\"b\" size=2K")), "1024");
    let counted =
        format!("{make}$make name=a size=1; $make name=b size=1; :put [:len [/disk find type=file]]");
    assert_eq!(run(&counted), "2");
    let twice = format!("{make}:onerror e in={{$make name=a size=1; $make name=a size=1}} do={{:put $e}}");
    assert_eq!(run(&twice), "failure: already have such slot");
    // The condition of a `find` may call one, which is then not about the item that is looked at.
    check(&[(
        r":local f do={:return [:typeof $slot]}; :put [:len [/disk find slot=[$f]]]; :put [:len [/disk find slot!=[$f]]]",
        "0\r\n1",
    )]);
}

#[test]
fn globals_are_known_where_they_are_declared_and_outlast_a_line() {
    let lines = [
        r#":global greet do={:return "hello $1"}; :global count 1"#,
        ":put [:typeof $count]",
        ":global count; :set count ($count + 1); :put $count",
        ":global greet; :put [$greet \"you\"]",
        ":local f do={:put [:typeof $count]}; :global count; $f",
        ":local f do={:global count; :put $count}; $f",
        ":global factorial do={:global factorial; :if ($1 = 0) do={:return 1}; :return ($1 * [$factorial ($1 - 1)])}",
        ":global factorial; :put [$factorial 10]",
    ];
    let printed = run_on(Version::new(7, 21), &lines);
    assert_eq!(printed, "nothing\r\n2\r\nhello you\r\nnothing\r\n2\r\n3628800");
    check(&[
        (":global again do={:global again; $again}; $again", "maximum recursion depth reached"),
        (":global x; :put [:typeof $x]", "nothing"),
    ]);
}
