//! Who goes with whom, and who waits.

use std::time::Duration;

use super::*;

/// Longer than any line here.
const ANY: usize = 1 << 20;

fn sessions(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap()
}

fn call(about: &str) -> Call {
    Call {
        name: "create",
        body: ":put 1".into(),
        arguments: format!("id=\"{about}\""),
        answer_limit: 100,
        about: about.into(),
    }
}

fn enter<'queue>(queue: &'queue Queue, about: &[&str]) -> Vec<Ticket<'queue>> {
    about.iter().map(|about| queue.enter(call(about))).collect()
}

fn about<'share>(share: &'share Share<'_>) -> Vec<&'share str> {
    share.calls.iter().map(Waiting::about).collect()
}

/// What a session takes that finds something.
fn take(queue: &Queue, of: usize) -> Share<'_> {
    queue.take(sessions(of), ANY).unwrap()
}

/// As if their line had run to its end.
fn end(queue: &Queue, share: Share<'_>) {
    share.calls.into_iter().for_each(|call| queue.end(call, Ok(Reply::Done(String::new()))));
}

fn late() -> Outcome {
    Err(Error::Late)
}

#[test]
fn a_session_takes_its_fair_share_in_the_order_of_arrival() {
    let queue = Queue::default();
    let _tickets = enter(&queue, &["a", "b", "c", "d", "e"]);
    let shares: Vec<_> = (0..3).map_while(|_| queue.take(sessions(3), ANY)).collect();
    assert_eq!(shares.iter().map(about).collect::<Vec<_>>(), [&["a", "b"][..], &["c", "d"], &["e"]]);
    assert_eq!(shares[0].batch.text().matches("do={:put 1}").count(), 1);
    assert!(queue.take(sessions(3), ANY).is_none());
}

/// Those that have a line come for another one only after a round trip.
#[test]
fn the_last_free_session_takes_what_fits_and_leaves_nothing_to_those_that_have_a_line() {
    let queue = Queue::default();
    let _tickets = enter(&queue, &["a", "b", "c", "d", "e"]);
    let alone = take(&queue, 5);
    let _second = take(&queue, 2);
    assert_eq!((about(&alone), queue.lock().lines), (vec!["a"], 2));
    let _more = enter(&queue, &["f", "g"]);
    let last = take(&queue, 3);
    assert_eq!(about(&last), ["f", "g"]);
    drop(alone);
    assert_eq!(queue.lock().lines, 2);
}

#[test]
fn a_line_carries_no_more_than_it_may_and_always_one() {
    let queue = Queue::default();
    let _many = enter(&queue, &["a"; 40]);
    let long = take(&queue, 1);
    assert_eq!(long.calls.len(), LARGEST_SHARE);
    end(&queue, long);
    let short = queue.take(sessions(1), 600).unwrap();
    assert!((2..8).contains(&short.calls.len()) && short.batch.text().len() <= 600);
    end(&queue, short);
    assert_eq!(queue.take(sessions(1), 1).unwrap().calls.len(), 1);
}

#[tokio::test]
async fn who_gives_up_before_it_is_taken_is_never_sent() {
    let queue = Queue::default();
    let mut tickets = enter(&queue, &["a", "b", "c"]);
    drop(tickets.remove(0));
    assert!(tickets[0].give_up());
    let share = take(&queue, 1);
    assert_eq!(about(&share), ["c"]);
    assert!(!tickets[1].give_up(), "it is under way");
}

#[test]
fn who_had_no_answer_goes_alone_until_it_has_one() {
    let queue = Queue::default();
    for doubt in [late(), Ok(Reply::Unknown(String::new()))] {
        queue.note("b".into(), &doubt);
        let _tickets = enter(&queue, &["a", "b", "c", "b"]);
        for expected in [&["a", "c"][..], &["b"], &["b"]] {
            let share = take(&queue, 1);
            assert_eq!(about(&share), expected);
            end(&queue, share);
        }
        queue.note("b".into(), &Ok(Reply::Done(String::new())));
        let _tickets = enter(&queue, &["a", "b"]);
        let share = take(&queue, 1);
        assert_eq!(about(&share), ["a", "b"]);
        end(&queue, share);
    }
}

#[test]
fn suspects_are_forgotten_in_time_and_are_not_many() {
    let queue = Queue::default();
    for n in 0..1000 {
        queue.note(format!("{n}"), &late());
    }
    let now = Instant::now();
    let suspected = |about: &str, then| queue.lock().suspects.contains(about, then);
    assert!(!suspected("743", now) && suspected("744", now) && suspected("999", now));
    assert!(!suspected("999", now + Duration::from_mins(6)));
}

#[test]
fn a_connection_that_broke_makes_nobody_suspect() {
    let queue = Queue::default();
    queue.note("a".into(), &Err(Error::Lost(String::new())));
    let _tickets = enter(&queue, &["b", "a"]);
    assert_eq!(about(&take(&queue, 1)), ["b", "a"]);
}

#[tokio::test]
async fn one_session_is_never_held_by_a_line_that_is_past_its_time() {
    let queue = Queue::default();
    let stuck = queue.stick(sessions(2)).unwrap();
    assert!(queue.stick(sessions(2)).is_none());
    drop(stuck);
    assert!(queue.stick(sessions(2)).is_some());
}

/// Whether its caller still waits or not.
#[tokio::test]
async fn a_call_waits_until_those_before_it_about_the_same_have_ended_and_holds_nobody_up() {
    let queue = Queue::default();
    let mut callers = enter(&queue, &["a", "b"]);
    let mut share = take(&queue, 1);
    assert!(!callers[0].give_up(), "it is under way");
    callers.clear();
    let _tickets = enter(&queue, &["a", "b", "c"]);
    assert!(queue.is_running("a") && queue.is_running("b") && !queue.is_running("c"));
    assert_eq!(about(&take(&queue, 1)), ["c"]);
    // The first one of the line has ended, and what comes behind it not.
    queue.end(share.calls.remove(0), Ok(Reply::Done(String::new())));
    queue.arrival().await;
    assert_eq!(about(&take(&queue, 1)), ["a"]);
    assert!(queue.take(sessions(1), ANY).is_none());
    queue.end(share.calls.remove(0), Err(Error::Unreachable("no session".into())));
    queue.arrival().await;
    assert_eq!(about(&take(&queue, 1)), ["b"]);
}

/// The array may still work at it.
#[test]
fn a_call_waits_a_while_for_one_about_the_same_whose_end_is_not_known() {
    let unfinished = Ok(Reply::Failed(Known::Unfinished, "action timed out".into()));
    let unread = Ok(Reply::Unknown("?".into()));
    for (unknown, longer) in
        [(late(), 10_u64), (Err(Error::Lost("reset".into())), 0), (unfinished, 0), (unread, 0)]
    {
        let queue = Queue::new(Duration::from_secs(10));
        let _tickets = enter(&queue, &["a", "a"]);
        queue.end(take(&queue, 2).calls.remove(0), unknown);
        assert!(queue.take(sessions(2), ANY).is_none() && queue.is_running("a"));
        let now = Instant::now();
        let over = queue.lock().running.forget(now).unwrap();
        let after = |seconds| now + Duration::from_secs(longer + seconds);
        assert!(over > after(1) && over <= after(2));
        assert_eq!(queue.lock().running.forget(over), None);
        assert_eq!(about(&take(&queue, 2)), ["a"]);
    }
}

#[tokio::test]
async fn what_is_put_back_goes_first_and_alone_and_in_its_order() {
    let queue = Queue::default();
    let mut tickets = enter(&queue, &["a", "b", "c", "b"]);
    let mut share = take(&queue, 1);
    // Nobody waits for it any more.
    drop(tickets.remove(2));
    let sent: Vec<_> = share.calls.iter().map(|call| call.ticket).collect();
    share.calls.drain(1..).for_each(|call| queue.put_back(call));
    let _later = enter(&queue, &["d"]);
    for ticket in [sent[1], sent[3]] {
        let next = take(&queue, 1);
        assert_eq!((about(&next), next.calls[0].ticket), (vec!["b"], ticket));
        end(&queue, next);
    }
    assert_eq!(about(&take(&queue, 1)), ["d"]);
}

#[tokio::test]
async fn as_many_are_woken_as_there_is_work_for() {
    let queue = Queue::default();
    // Both arrive before anybody waits, which is remembered as one arrival.
    let _tickets = enter(&queue, &["a", "b"]);
    queue.arrival().await;
    assert_eq!(take(&queue, 2).calls.len(), 1);
    queue.arrival().await;
    assert_eq!(take(&queue, 2).calls.len(), 1);
}

#[tokio::test]
async fn a_closed_queue_sends_everybody_away() {
    let queue = Queue::default();
    let ended = Error::Unreachable("the program is shutting down".into());
    let mut before = enter(&queue, &["a"]).remove(0);
    queue.close(&ended);
    let mut after = enter(&queue, &["b"]).remove(0);
    assert_eq!(before.outcome().await, Some(Err(ended.clone())));
    assert_eq!(after.outcome().await, Some(Err(ended)));
    assert!(queue.take(sessions(1), ANY).is_none());
}
