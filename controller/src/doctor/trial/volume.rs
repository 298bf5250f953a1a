//! The volume itself: made, grown, kept while it is in use, and removed.

use rds_csi_api::status;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::super::Stopped;
use super::super::check::Check;
use super::super::device::judged;
use super::super::report::Outcome;
use super::super::scratch::LENGTH;
use super::{BACK, GROWN, PAUSE, SIZE, Trial, equal};
use crate::array::routeros::quote;
use crate::array::{Array as _, Content, Error, Export, IfOpen, Volume};

impl Trial<'_> {
    pub(super) async fn volume_is_made(&mut self) -> Result<(), Stopped> {
        let wanted = self.wanted(&self.volume, Content::Empty(SIZE), Export::Off);
        let made = self.x.array.create(&wanted).await;
        self.x.alone().await?;
        if let Err(Error::Conflict { what: "size", found, .. }) = &made {
            self.x.report.note(Check::Create, Outcome::Proved, "its size apart");
            return self.x.must(Check::ExactSize, Err(format!("{found} instead of {SIZE}")));
        }
        let evidence = |volume: &Volume| format!("slot {}, NQN {}", volume.id.slot(), volume.nqn);
        let volume = self.x.held(Check::Create, made, evidence)?;
        self.x.may(Check::ExactSize, equal(volume.size, SIZE));
        let digits = self.x.ask(":put [:tostr [/disk get [/disk find slot=$volume] file-size]]").await;
        self.x.may(Check::PlainSize, judged(digits, |said| said == SIZE.get().to_string()));
        let compared = format!(
            ":put [:len [/disk find slot=$volume file-size<{}]]; :put [:len [/disk find slot=$volume file-size>{}]]",
            GROWN.get(),
            SIZE.get()
        );
        let compared = self.x.ask(&compared).await;
        self.x.may(Check::CompareSizes, judged(compared, |said| said == "1\n0"));

        let shown =
            self.x.ask(":put [:serialize to=json [/disk print detail as-value where slot=$volume]]").await;
        let shown = shown.map_err(|error| status::chain(&error));
        let shown = shown.and_then(|said| serde_json::from_str(&said).map_err(|error| error.to_string()));
        let shown: Value = self.x.tell(Check::Comment, shown)?;
        let comment = shown[0]["comment"].as_str().unwrap_or("");
        let owner = format!("rds-csi:{}", self.x.config.cluster);
        let kept = comment.split(' ').next() == Some(owner.as_str());
        let told = format!("comment {comment:?}");
        self.x.may(Check::Comment, if kept { Ok(told) } else { Err(told) });
        let slot = shown[0]["slot"].as_str().unwrap_or("");
        let whole = slot == self.volume.slot() && slot.len() == LENGTH;
        let told = format!("slot {slot:?}");
        self.x.may(Check::SlotLength, if whole { Ok(told) } else { Err(told) });

        let again = self.x.array.create(&wanted).await;
        let again = again.map_err(|error| status::chain(&error)).and_then(|again| {
            if again == volume {
                Ok("the same volume".to_owned())
            } else {
                Err(format!("another: {again:?}"))
            }
        });
        self.x.must(Check::Repeat, again)
    }

    pub(super) async fn volume_grows(&mut self) -> Result<(), Stopped> {
        let grown = self.x.array.expand(&self.volume, GROWN).await;
        let grown = grown.map_err(|error| status::chain(&error)).and_then(|volume| equal(volume.size, GROWN));
        self.x.must(Check::Grow, grown)?;
        let Some(first) = &mut self.first else { return Ok(()) };
        let deadline = Instant::now() + BACK;
        let seen = loop {
            match first.namespace().await {
                Ok(namespace) if namespace.size != GROWN && Instant::now() < deadline => sleep(PAUSE).await,
                seen => break seen.map(|namespace| namespace.size),
            }
        };
        let seen = self.x.heard(Check::GrowSeen, seen)?;
        self.x.may(Check::GrowSeen, equal(seen, GROWN));
        Ok(())
    }

    /// The driver looks before it removes one. Who uses it between the look and the removal is safe only if the array
    /// refuses.
    pub(super) async fn subvolume_in_use_stays(&mut self) {
        let pool = quote(self.x.config.pool.as_str());
        let image = quote(format!("{}/{}/disk.img", self.x.config.pool, self.volume.slot()));
        let tried = format!(
            ":local there [/disk/btrfs/subvolume find fs={pool} name=$volume]; \
             :onerror why in={{/disk/btrfs/subvolume remove $there; :put \"it was removed\"}} do={{:put $why}}; \
             :put [:len [/disk/btrfs/subvolume find fs={pool} name=$volume]]; :put [:len [/file find name={image}]]"
        );
        let told = judged(self.x.ask(&tried).await, |said| said.ends_with("\n1\n1"));
        let (outcome, evidence) = match told {
            Ok(said) => (Outcome::Proved, said.trim_end_matches("\n1\n1").to_owned()),
            Err(why) => (Outcome::Warning, why),
        };
        self.x.report.note(Check::SubvolumeInUse, outcome, evidence);
    }

    /// By the driver's own operations, which demand that the volume be as it was.
    pub(super) async fn all_is_removed(&mut self) -> Result<(), Stopped> {
        let removed = self.removed().await;
        self.x.done(Check::SubvolumeRemoval, removed)?;
        let left = self.x.left().await;
        self.x.must(Check::SubvolumeRemoval, left)
    }

    async fn removed(&mut self) -> Result<(), Error> {
        let array = &self.x.array;
        for id in [&self.volume, &self.x.scratch.clone] {
            match array.dismiss(id, &Export::AnyHost, &Export::Off).await {
                Ok(_) | Err(Error::Missing(_)) => array.delete(id, IfOpen::Refuse).await?,
                Err(error) => return Err(error),
            }
        }
        array.delete_snapshot(&self.x.scratch.snapshot).await
    }
}
