//! Answers as arrays give them, and as nobody should.

use proptest::prelude::*;

use super::*;
use crate::array::routeros::reply::Known;
use crate::array::routeros::script::Mark;

fn call(name: &'static str, body: &str, arguments: &str) -> Call {
    Call { name, body: body.into(), arguments: arguments.into(), answer_limit: 8192, about: arguments.into() }
}

/// So many calls that await their answer, and their nonces.
fn expecting(count: usize) -> (Answers, Vec<Nonce>) {
    let nonces: Vec<_> = (0..count).map(|_| Nonce::fresh()).collect();
    let expected = |nonce: &Nonce| Expected { nonce: nonce.clone(), limit: 8192 };
    (Answers::to(nonces.iter().map(expected).collect()), nonces)
}

/// What is told of each call, read in pieces of that many bytes.
fn read(mut answers: Answers, answer: &str, piece: usize) -> Vec<Reply> {
    let mut replies = Vec::new();
    let mut told = |at: usize, reply| {
        assert_eq!(at, replies.len(), "in their order, each once");
        replies.push(reply);
    };
    for chunk in answer.as_bytes().chunks(piece) {
        answers.read(chunk, &mut told);
    }
    answers.end(&mut told);
    replies
}

fn failed(message: &str) -> Reply {
    Reply::Failed(Known::Other, message.into())
}

fn done(printed: &str) -> Reply {
    Reply::Done(printed.into())
}

fn unknown(text: &str) -> Reply {
    Reply::Unknown(text.into())
}

#[test]
fn done_failed_and_neither_are_three_things() {
    let complaint = "expected end of command (line 1 column 17)";
    let (_, nonces) = expecting(1);
    let (ok, err) = (nonces[0].done(), nonces[0].failed());
    let cases = [
        (format!("[]\r\n{ok}\r\n"), done("[]")),
        (format!("{err}rds-csi: missing END\r\n"), Reply::Stopped(Mark::Missing)),
        (format!("{err}no such command END\r\n"), failed("no such command")),
        (format!("{err}a\r\nb END\r\n"), failed("a\nb")),
        (format!("{err}a\r\nb"), failed("a\nb")),
        (format!("{err} END"), failed("")),
        (format!("{complaint}\r\n"), Reply::NotUnderstood(complaint.into())),
        (format!("[]\r\n{complaint}\r\n"), unknown(&format!("[]\n{complaint}"))),
        (String::new(), unknown("")),
        ("[]\r\n".into(), unknown("[]")),
        ("failure: timeout".into(), unknown("failure: timeout")),
        (ok[..20].into(), unknown(&ok[..20])),
    ];
    for (answer, reply) in cases {
        let answers = Answers::to(vec![Expected { nonce: nonces[0].clone(), limit: 8192 }]);
        assert_eq!(read(answers, &answer, 7), [reply], "{answer:?}");
    }
}

#[test]
fn calls_that_share_a_line_share_nothing_else() {
    let (answers, n) = expecting(5);
    let answer = format!(
        "[1]\r\n{}\r\n{}a\r\nOK\r\nb END\r\n{}\r\n[4]\r\n{}\r\n",
        n[0].done(),
        n[1].failed(),
        n[2].done(),
        n[3].done()
    );
    assert_eq!(
        read(answers, &answer, 3),
        [done("[1]"), failed("a\nOK\nb"), done(""), done("[4]"), unknown("")]
    );
}

#[test]
fn a_call_is_told_as_soon_as_it_has_reported() {
    let (mut answers, n) = expecting(2);
    let mut told = Vec::new();
    answers.read(format!("[]\r\n{}", n[0].done()).as_bytes(), |at, _| told.push(at));
    assert!(told.is_empty());
    answers.read(b"\r\n", |at, _| told.push(at));
    assert_eq!(told, [0]);
    answers.read(format!("{}no such item END\r\n", n[1].failed()).as_bytes(), |at, _| told.push(at));
    assert_eq!(told, [0, 1]);
}

#[test]
fn what_a_line_without_its_report_printed_is_nobody_elses() {
    let (answers, n) = expecting(3);
    let answer = format!("[1]\r\n\u{1b}#?!\r\n[2]\r\n{}\r\n[3]\r\n{}\r\n", n[1].done(), n[2].done());
    let between = unknown("[1]\n\u{1b}#?!\n[2]");
    assert_eq!(read(answers, &answer, 100), [between.clone(), between, done("[3]")]);
}

#[test]
fn an_array_that_could_not_read_a_line_ran_none_of_its_calls() {
    let (answers, _) = expecting(2);
    let complaint = Reply::NotUnderstood("syntax error (line 1 column 9)".into());
    assert_eq!(read(answers, "syntax error (line 1 column 9)\r\n", 9), [complaint.clone(), complaint]);
}

#[test]
fn who_prints_more_than_it_may_is_not_believed_and_harms_no_other() {
    let (answers, n) = expecting(3);
    let flood = "x".repeat(100_000);
    let answer = format!("{flood}\r\n{}\r\n{flood}{flood}\r\n[2]\r\n{}\r\n", n[0].done(), n[1].done());
    let replies = read(answers, &format!("{answer}[3]\r\n{}\r\n", n[2].done()), 1000);
    assert!(matches!(replies[..2], [Reply::Unknown(_), Reply::Unknown(_)]));
    assert_eq!(replies[2], done("[3]"));
}

#[test]
fn another_lines_report_is_not_ours() {
    let (answers, _) = expecting(1);
    let other = Nonce::fresh();
    let answer = format!("{}\r\n{}no such item END\r\n", other.done(), other.failed());
    assert!(matches!(read(answers, &answer, 50)[..], [Reply::Unknown(_)]));
}

#[test]
fn a_line_carries_what_its_calls_have_in_common_once() {
    let mut batch = Batch::default();
    for call in [
        call("create", ":put $id", "id=\"a\""),
        call("create", ":put $id", "id=\"b\""),
        call("create", ":put 1", "id=\"c\""),
        call("delete", ":put $id", "id=\"d\""),
    ] {
        batch.push(&call);
    }
    let frames = ["create id=\"a\"", "create id=\"b\"", "createX id=\"c\"", "delete id=\"d\""]
        .iter()
        .zip(&batch.expected)
        .map(|(called, Expected { nonce, .. })| {
            let (done, failed) = (nonce.done(), nonce.failed());
            format!(
                "; :onerror e in={{${called}; :put \"{done}\"}} do={{:put (\"{failed}\" . $e . \" END\")}}"
            )
        })
        .collect::<Vec<_>>()
        .concat();
    let functions = ":local create do={:put $id}; :local createX do={:put 1}; :local delete do={:put $id}";
    assert_eq!(batch.text(), format!("{functions}{frames}"));
}

#[test]
fn a_line_grows_to_its_limit_and_not_beyond() {
    let calls = |count| {
        let mut batch = Batch::default();
        let pushed = (0..count).filter(|_| batch.push_within(&call("create", "x", "id=\"a\""), 1000)).count();
        (pushed, batch.text().len())
    };
    let (pushed, length) = calls(100);
    assert!((2..20).contains(&pushed) && length <= 1000, "{pushed} calls in {length} bytes");
    assert!(length + calls(2).1 - calls(1).1 > 1000);
}

#[test]
fn nonces_differ_and_are_nothing_but_letters_and_digits() {
    let nonces: std::collections::HashSet<_> = (0..1000).map(|_| Nonce::fresh().0).collect();
    assert_eq!(nonces.len(), 1000);
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    assert!(nonces.iter().all(|nonce| nonce.len() == 22 && nonce.chars().all(plain)));
}

proptest! {
    #[test]
    fn no_answer_makes_the_reader_panic_or_a_call_done(
        answer in "([ -~\\r\\n]|OK |ERR | END|\\PC)*",
        count in 1_usize..5,
        piece in 1_usize..99,
    ) {
        let (answers, _) = expecting(count);
        let replies = read(answers, &answer, piece);
        prop_assert_eq!(replies.len(), count);
        prop_assert!(replies.iter().all(|reply| matches!(reply, Reply::Unknown(_) | Reply::NotUnderstood(_))));
    }

    #[test]
    fn whatever_calls_print_is_their_own(printed in proptest::collection::vec("([!-~]{1,9}|OK x|ERR x|syntax error)", 1..9)) {
        let (answers, nonces) = expecting(printed.len());
        let framed = |(text, nonce): (&String, &Nonce)| format!("{text}\r\n{}\r\n", nonce.done());
        let answer = printed.iter().zip(&nonces).map(framed).collect::<Vec<_>>().concat();
        let expected: Vec<_> = printed.iter().map(|text| done(text)).collect();
        prop_assert_eq!(read(answers, &answer, 11), expected);
    }
}
