use rds_csi_api::Bytes;

use super::*;
use crate::array::Stray;

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

fn volume(id: &str) -> Volume {
    let id: VolumeId = id.parse().unwrap();
    Volume {
        size: Bytes::gib(1),
        nqn: Nqn::of_volume(&id),
        port: 4420,
        export: Export::Off,
        source: None,
        reconnect: None,
        owner: Owner::ThisCluster,
        layout: Layout::Subvolume,
        soundness: Soundness::Sound,
        id,
    }
}

fn snapshot(id: &str, source: &str) -> Snapshot {
    let taken = std::time::SystemTime::UNIX_EPOCH;
    Snapshot { id: id.parse().unwrap(), source: source.parse().unwrap(), size: Bytes::gib(1), taken }
}

/// `pvc-lost` is claimed by nobody, `pvc-used` by somebody.
struct World {
    inventory: Inventory,
    claims: Claims,
    backend: Option<BackendName>,
    removal: Removal,
    seen: Seen,
    start: Instant,
}

impl World {
    fn new() -> Self {
        let mut claims = Claims::default();
        claims.claim_volume("pv-1", "pvc-used").unwrap();
        claims.claim_snapshot("snapcontent-1", Some("snap-used")).unwrap();
        Self {
            inventory: Inventory {
                volumes: vec![volume("pvc-lost"), volume("pvc-used")],
                ..Inventory::default()
            },
            claims,
            backend: None,
            removal: Removal::After(DAY),
            seen: Seen::default(),
            start: Instant::now(),
        }
    }

    /// The report so long after the first.
    fn report(&mut self, after: Duration) -> Vec<Orphan> {
        let prefix = "nqn.2000-02.com.mikrotik:pvc-".parse().unwrap();
        let policy = Policy { removal: self.removal };
        let now = self.start + after;
        judge(&self.inventory, &self.claims, self.backend.as_ref(), &prefix, &mut self.seen, now, policy)
    }

    /// What becomes of everything that is an orphan from the first report until a day later.
    fn verdicts(&mut self) -> Vec<(String, Verdict)> {
        self.report(Duration::ZERO);
        self.report(HOUR);
        self.report(DAY).into_iter().map(|orphan| (orphan.name, orphan.verdict)).collect()
    }

    /// What becomes of `pvc-lost`, the only orphan.
    fn verdict(&mut self) -> Verdict {
        match &self.verdicts()[..] {
            [(name, verdict)] if name.ends_with("pvc-lost") => verdict.clone(),
            others => panic!("{others:?}"),
        }
    }

    fn lost(&mut self) -> &mut Volume {
        &mut self.inventory.volumes[0]
    }
}

fn removed(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Remove(_))
}

/// What is different from a world in which it goes.
type Change = fn(&mut World);

#[test]
fn lesson_6_only_with_every_proof_and_an_age_and_an_owner_may_a_volume_go() {
    assert!(removed(&World::new().verdict()), "with all of them it goes");
    let cases: [(&str, Change, Reason); 8] = [
        ("nobody switched it on", |world| world.removal = Removal::Off, Reason::SwitchedOff),
        ("it carries no owner", |world| world.lost().owner = Owner::Nobody, Reason::NoVolumeOfOurs),
        ("it is a flat file", |world| world.lost().layout = Layout::FlatFile, Reason::NoVolumeOfOurs),
        ("every host may connect", |world| world.lost().export = Export::AnyHost, Reason::Exported),
        (
            "a host may connect",
            |world| {
                let host = rds_csi_api::HostNqn::of(&"w1".parse().unwrap());
                world.lost().export = Export::to_hosts([host]);
            },
            Reason::Exported,
        ),
        (
            "a snapshot of it is there",
            |world| world.inventory.snapshots = vec![snapshot("snap-used", "pvc-lost")],
            Reason::HasSnapshots,
        ),
        ("the wrong cluster is asked", |world| world.claims = Claims::default(), Reason::NothingIsClaimed),
        ("it is young", |world| world.removal = Removal::After(DAY + HOUR), Reason::TooYoung),
    ];
    for (what, change, reason) in cases {
        let mut world = World::new();
        change(&mut world);
        let verdicts = world.verdicts();
        let lost = verdicts.iter().find(|(name, _)| name == "pvc-lost").unwrap();
        assert_eq!(lost.1, Verdict::Keep(reason), "{what}");
        assert!(!verdicts.iter().any(|(_, verdict)| removed(verdict)), "{what}: {verdicts:?}");
    }
}

#[test]
fn lesson_6_what_somebody_claims_in_any_spelling_is_no_orphan() {
    let claim =
        |handle: &'static str| move |world: &mut World| world.claims.claim_volume("pv-2", handle).unwrap();
    let mut world = World::new();
    claim("pvc-lost")(&mut world);
    assert!(world.verdicts().is_empty());
    // The backend was renamed, or the default one changed: its volumes are not abandoned for that.
    for (backend, handle) in
        [(None, "rack-1/pvc-lost"), (Some("rack-2"), "pvc-lost"), (Some("rack-2"), "rack-1/pvc-lost")]
    {
        let mut world = World::new();
        world.backend = backend.map(|name| name.parse().unwrap());
        if let Some(name) = backend {
            *world.lost() = volume(&format!("{name}/pvc-lost"));
        }
        claim(handle)(&mut world);
        assert!(world.verdicts().is_empty(), "{backend:?} {handle}");
    }
    // A name that nobody understands is not nobody's: nothing can be said at all.
    for handle in ["/pvc-lost", "", "a/b/pvc-lost", "rack-1//pvc-lost"] {
        let error = World::new().claims.claim_volume("pv-2", handle).unwrap_err().to_string();
        assert!(
            error.contains("PersistentVolume pv-2 names") && error.contains("nothing can be said"),
            "{error}"
        );
    }
    assert!(World::new().claims.claim_snapshot("content-2", Some("pvc-lost")).is_err());
}

#[test]
fn lesson_6_a_volume_that_a_claim_still_waits_for_is_no_orphan() {
    let uid = "123e4567-e89b-12d3-a456-426614174000";
    for backend in [None, Some("rack-2")] {
        let mut world = World::new();
        world.backend = backend.map(|name| name.parse().unwrap());
        let id = VolumeId::for_name(world.backend.as_ref(), &format!("pvc-{uid}").parse().unwrap());
        *world.lost() = volume(id.as_str());
        world.claims.expect_volume_for(uid);
        assert!(world.verdicts().is_empty(), "{id}");
    }
}

#[test]
fn lesson_6_snapshots_strays_and_others_volumes_are_told_and_stay() {
    let mut world = World::new();
    let mut foreign = volume("pvc-go");
    foreign.owner = Owner::Nobody;
    // A node runs from this one.
    let system = volume("nixos-w1");
    world.inventory.volumes = vec![volume("pvc-used"), foreign, system];
    world.inventory.snapshots = vec![snapshot("snap-lost", "pvc-gone"), snapshot("snap-used", "pvc-used")];
    world.inventory.strays = vec![Stray { name: "pvc-half".into(), why: "it has no disk".into() }];
    let verdicts = world.verdicts();
    let names: Vec<_> = verdicts.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["pvc-go", "snap-lost", "pvc-half"]);
    for (name, verdict) in &verdicts {
        assert_eq!(*verdict, Verdict::Keep(Reason::NoVolumeOfOurs), "{name}");
    }
}

#[test]
fn what_a_doctor_left_behind_is_no_orphan_and_goes_with_the_next_doctor() {
    let mut world = World::new();
    world.inventory.volumes = vec![volume("pvc-used"), volume("pvc-doctor-00c0ffee-0123456789")];
    world.inventory.snapshots = vec![snapshot("snap-doctor-00c0ffee-012345678", "pvc-used")];
    let name = "pvc-doctor-00c0ffee-9876543210".into();
    world.inventory.strays = vec![Stray { name, why: "it has no disk".into() }];
    assert_eq!(world.verdicts(), []);
}

#[test]
fn snapshots_of_a_cluster_that_cannot_say_who_claims_them_are_no_orphans() {
    let mut world = World::new();
    world.claims = Claims::default();
    world.claims.claim_volume("pv-1", "pvc-used").unwrap();
    world.claims.claim_volume("pv-2", "pvc-lost").unwrap();
    world.inventory.snapshots = vec![snapshot("snap-lost", "pvc-used")];
    assert!(world.verdicts().is_empty());
}

#[test]
fn lesson_6_an_orphan_is_seen_twice_in_a_row_and_told_once() {
    let mut world = World::new();
    assert_eq!(world.report(Duration::ZERO), []);
    let second = world.report(HOUR);
    assert!(second[0].new && second[0].age == HOUR);
    let third = world.report(2 * HOUR);
    assert!(!third[0].new && third[0].age == 2 * HOUR);
    // Somebody claims it for a while: its age begins anew.
    let unclaimed = world.claims.clone();
    world.claims.claim_volume("pv-2", "pvc-lost").unwrap();
    assert_eq!(world.report(3 * HOUR), []);
    world.claims = unclaimed;
    assert_eq!(world.report(DAY), []);
    let again = world.report(DAY + HOUR);
    assert!(again[0].new && again[0].age == HOUR && again[0].verdict == Verdict::Keep(Reason::TooYoung));
}

#[test]
fn an_orphan_is_told_with_all_that_is_known_about_it() {
    let mut world = World::new();
    world.lost().source = Some(Source::Snapshot("snap-used".parse().unwrap()));
    world.removal = Removal::Off;
    world.report(Duration::ZERO);
    assert_eq!(
        world.report(HOUR)[0].to_string(),
        "volume pvc-lost (1073741824 bytes (1 GiB), nqn.2000-02.com.mikrotik:pvc-lost at port 4420, lets nobody in, this cluster's, \
         a subvolume, made of snapshot snap-used) is claimed by nobody, seen so for 3600 s; it stays, since removal is \
         switched off"
    );
}
