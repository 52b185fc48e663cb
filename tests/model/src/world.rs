//! Everything at once: drivers, journal, service, and what is on its way between them; and what can happen next.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use retinker::recovery::executor::LEASE_TTL;
use retinker::recovery::journal::machine::Machine;
use retinker::recovery::journal::{Begun, Lease, StoreError};
use retinker::recovery::restore::{RestoreRecord, RestoreState};

use crate::digest;
use crate::driver::{Drivers, Point};
use crate::seams::{Answer, Ask, Lane};
use crate::service::{Call, Rules, Service};

/// How much may happen.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// How many drivers there are.
    pub drivers: usize,
    /// How often one is started, in all.
    pub starts: u64,
    /// How often one crashes, in all.
    pub crashes: u8,
    /// How often a request to the service is not answered, in all.
    pub losses: u8,
    /// How often a load is refused for good, in all.
    pub refusals: u8,
    /// Whether the renewal of a lease can be on its way for a while, and be overtaken. Else it is done when it is due.
    pub slow_renewals: bool,
}

/// What is wrong on purpose, to see that the checker finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Nothing.
    None,
    /// The journal does not look at the lease of who writes.
    NoFence,
    /// Leases are measured by the clock of who asks, and these differ.
    DriversClock,
    /// Leases do not end.
    EndlessLease,
    /// That the identity is written is told before it is written.
    IdentityUnwritten,
    /// Every restore is written, even of a run that one holds.
    BeginsAlways,
}

/// How far the second driver's clock is ahead of the first one's, and so on.
const SKEW: Duration = Duration::from_secs(600);

/// A lease as it was given, by the model's own book-keeping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The lease.
    pub lease: Lease,
    /// Until when it holds, by the journal's clock; zero once it is given back.
    pub until: Duration,
}

/// A driver: how often it was started, and where it is if it runs.
#[derive(Debug, Clone, Default)]
pub struct Driver {
    /// How often it was started.
    pub starts: u64,
    /// Where it is.
    pub at: Option<Arc<Point>>,
}

/// A moment.
#[derive(Debug, Clone, Default)]
pub struct Moment {
    /// The journal's clock.
    pub now: Duration,
    /// The journal.
    pub journal: Machine,
    /// The service.
    pub service: Service,
    /// The drivers.
    pub drivers: Vec<Driver>,
    /// Requests that nobody waits for any more, each with who sent it.
    pub adrift: Vec<(usize, Ask)>,
    /// The last lease of each restore.
    pub held: BTreeMap<String, Held>,
    /// Every run that was ever adopted.
    pub adopted: BTreeSet<String>,
    /// What the journal did and should not have done.
    pub faults: BTreeSet<&'static str>,
    /// Crashes so far.
    pub crashes: u8,
    /// Requests without an answer so far.
    pub losses: u8,
    /// Loads refused so far.
    pub refusals: u8,
}

impl Hash for Moment {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Only how long a lease holds from now on matters.
        let left = |until: Duration| until.saturating_sub(self.now);
        for entry in self.journal.entries() {
            let holder = entry.holder.as_ref().map(|(owner, until)| (owner, left(*until)));
            (digest::record(&entry.record), holder, entry.fence).hash(state);
        }
        for held in self.held.values() {
            (digest::lease(&held.lease), left(held.until)).hash(state);
        }
        for driver in &self.drivers {
            (driver.starts, driver.at.as_ref().map(|point| point.id)).hash(state);
        }
        // In whichever order they were left.
        let mut adrift: Vec<_> = self.adrift.iter().map(|(by, ask)| (by, ask.digest())).collect();
        adrift.sort_unstable();
        (&self.service, adrift, &self.adopted, &self.faults).hash(state);
        (self.crashes, self.losses, self.refusals).hash(state);
    }
}

impl PartialEq for Moment {
    fn eq(&self, other: &Self) -> bool {
        digest::of(self) == digest::of(other)
    }
}

impl Moment {
    /// All records.
    pub fn records(&self) -> impl Iterator<Item = &RestoreRecord> {
        self.journal.entries().map(|entry| &*entry.record)
    }

    /// Whether somebody holds a lease.
    pub fn is_leased(&self) -> bool {
        self.held.values().any(|held| held.until > self.now)
    }
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A driver is started.
    Start(usize),
    /// What a driver asks for is done, and it hears of it.
    Answer(usize, Lane),
    /// What a driver asks of the service is not answered. Whether it arrives is another matter.
    Lose(usize),
    /// The service refuses a driver's load for good.
    Refuse(usize),
    /// A driver is gone. What it had sent is on its way.
    Crash(usize),
    /// What nobody waits for any more arrives.
    Arrive(usize),
    /// A lease's time passes.
    Tick,
}

/// The world that is checked.
#[derive(Debug)]
pub struct World {
    /// The drivers.
    pub drivers: Drivers,
    /// The service's rules.
    pub rules: Rules,
    /// How much may happen.
    pub bounds: Bounds,
    /// What is wrong on purpose.
    pub flaw: Flaw,
}

impl World {
    /// The first moment.
    pub fn beginning(&self) -> Moment {
        let now = Duration::from_secs(1);
        Moment { now, drivers: vec![Driver::default(); self.bounds.drivers], ..Moment::default() }
    }

    /// What may happen, within the bounds.
    pub fn events(&self, moment: &Moment) -> Vec<Event> {
        let mut events = Vec::new();
        let starts: u64 = moment.drivers.iter().map(|driver| driver.starts).sum();
        for (number, driver) in moment.drivers.iter().enumerate() {
            let Some(point) = &driver.at else {
                // They are all alike: they come up in order.
                let in_order = number == 0 || moment.drivers[number - 1].starts > 0;
                if in_order && starts < self.bounds.starts {
                    events.push(Event::Start(number));
                }
                continue;
            };
            for (lane, ask) in &point.asks {
                let weary =
                    matches!((lane, ask), (Lane::Work, Ask::Pause(_))) && point.pauses() >= MOST_PAUSES;
                if !weary {
                    events.push(Event::Answer(number, *lane));
                }
                if let Ask::Call(call) = ask {
                    if moment.losses < self.bounds.losses {
                        events.push(Event::Lose(number));
                    }
                    let load = matches!(call, Call::Load(..) | Call::LoadInto(..));
                    if load && moment.refusals < self.bounds.refusals {
                        events.push(Event::Refuse(number));
                    }
                }
            }
            if moment.crashes < self.bounds.crashes {
                events.push(Event::Crash(number));
            }
        }
        events.extend((0..moment.adrift.len()).map(Event::Arrive));
        if moment.is_leased() {
            events.push(Event::Tick);
        }
        events
    }

    /// An event in words, for who reads a counterexample.
    pub fn told(moment: &Moment, event: &Event) -> String {
        let ask = match event {
            Event::Answer(number, lane) => asked(moment, *number, *lane),
            Event::Lose(number) | Event::Refuse(number) => asked(moment, *number, Lane::Work),
            Event::Arrive(place) => moment.adrift.get(*place).map(|(_, ask)| ask),
            Event::Start(_) | Event::Crash(_) | Event::Tick => None,
        };
        format!("{event:?} {}", ask.map(Ask::to_string).unwrap_or_default())
    }

    /// What comes of it.
    pub fn after(&self, moment: &Moment, event: &Event) -> Moment {
        let mut next = moment.clone();
        match *event {
            Event::Start(number) => self.start(&mut next, number),
            Event::Answer(number, lane) => {
                let Some(ask) = asked(moment, number, lane) else { return next };
                let answer = self.act(&mut next, number, ask);
                self.hear(&mut next, number, lane, answer);
                if lane == Lane::Keep && !self.bounds.slow_renewals {
                    self.renew(&mut next, number);
                }
            }
            Event::Lose(number) => {
                let Some(ask) = asked(moment, number, Lane::Work) else { return next };
                next.losses += 1;
                if ask.changes() {
                    next.adrift.push((number, ask.clone()));
                }
                self.hear(&mut next, number, Lane::Work, Answer::Lost);
            }
            Event::Refuse(number) => {
                next.refusals += 1;
                let body = r#"{"detail": "the checkpoint has expired"}"#.to_owned();
                self.hear(&mut next, number, Lane::Work, Answer::Reply(404, body));
            }
            Event::Crash(number) => {
                next.crashes += 1;
                let gone = next.drivers[number].at.take();
                let asks = gone.iter().flat_map(|point| &point.asks).map(|(_, ask)| ask);
                next.adrift.extend(asks.filter(|ask| ask.changes()).map(|ask| (number, ask.clone())));
            }
            Event::Arrive(place) => {
                let (number, ask) = next.adrift.remove(place);
                self.act(&mut next, number, &ask);
            }
            Event::Tick => next.now += LEASE_TTL,
        }
        self.forget(&mut next);
        next
    }

    /// What is adrift under a lease that another has followed can do nothing any more, whenever it arrives: that is seen
    /// now.
    fn forget(&self, next: &mut Moment) {
        let adrift = std::mem::take(&mut next.adrift);
        let (stale, adrift): (Vec<_>, _) = adrift.into_iter().partition(|(_, ask)| is_stale(&next.held, ask));
        next.adrift = adrift;
        for (number, ask) in stale {
            self.act(next, number, &ask);
        }
    }

    fn start(&self, next: &mut Moment, number: usize) {
        let driver = &mut next.drivers[number];
        driver.starts += 1;
        driver.at = Some(self.drivers.start((number as u64) << 8 | driver.starts));
    }

    fn renew(&self, next: &mut Moment, number: usize) {
        if let Some(ask @ Ask::Acquire(..)) = asked(next, number, Lane::Keep).cloned().as_ref() {
            let answer = self.act(next, number, ask);
            self.hear(next, number, Lane::Keep, answer);
        }
    }

    /// Lets a driver go on with an answer. What it no longer waits for is on its way all the same.
    fn hear(&self, next: &mut Moment, number: usize, lane: Lane, answer: Answer) {
        let Some(point) = next.drivers[number].at.clone() else { return };
        let then = self.drivers.answered(&point, lane, answer);
        for (other, ask) in point.asks.iter().filter(|(other, _)| *other != lane) {
            let kept = then.ask(*other).is_some_and(|now| now.digest() == ask.digest());
            if ask.changes() && !kept {
                next.adrift.push((number, ask.clone()));
            }
        }
        next.drivers[number].at = Some(then).filter(|point| !point.asks.is_empty());
    }

    /// Does what was asked for.
    fn act(&self, next: &mut Moment, by: usize, ask: &Ask) -> Answer {
        match ask {
            Ask::ByOldRun(run_id) => {
                Answer::Records(next.journal.select(&|record| record.plan.run_id == *run_id))
            }
            Ask::Get(id) => Answer::Record(next.journal.get(id).cloned().map(Box::new)),
            Ask::Begin(record) => Answer::Begun(Box::new(self.begin(next, record))),
            Ask::Acquire(id, owner) => Answer::Lease(self.acquire(next, by, id, owner)),
            Ask::Release(lease) => {
                next.journal.release(lease);
                if let Some(held) = next.held.get_mut(&lease.restore_id).filter(|held| held.lease == *lease) {
                    held.until = Duration::ZERO;
                }
                Answer::Done(Ok(()))
            }
            Ask::Append(lease, record) => Answer::Done(self.append(next, by, lease, record)),
            Ask::Call(call) => {
                let (status, body) = next.service.answer(call, self.rules);
                Answer::Reply(status, body.to_string())
            }
            Ask::Pause(_) => Answer::Elapsed,
        }
    }

    fn begin(&self, next: &mut Moment, record: &RestoreRecord) -> Result<Begun, StoreError> {
        let mut record = without_story(record);
        if self.flaw == Flaw::BeginsAlways {
            // It is not found by its run.
            record.plan.run_id.clone_from(&record.id);
        }
        next.journal.begin(record)
    }

    /// The time that the journal goes by.
    fn clock(&self, now: Duration, by: usize) -> Duration {
        if self.flaw == Flaw::DriversClock { now + SKEW * by as u32 } else { now }
    }

    fn acquire(
        &self,
        next: &mut Moment,
        by: usize,
        id: &str,
        owner: &str,
    ) -> Result<Option<Lease>, StoreError> {
        let ttl = if self.flaw == Flaw::EndlessLease { Duration::MAX } else { LEASE_TTL };
        let lease = next.journal.acquire(self.clock(next.now, by), id, owner, ttl)?;
        if let Some(lease) = &lease {
            let until = next.now + LEASE_TTL;
            let before = next.held.insert(id.to_owned(), Held { lease: lease.clone(), until });
            if before.is_some_and(|held| held.until > next.now && held.lease != *lease) {
                next.faults.insert(TWO_LEASES);
            }
        }
        Ok(lease)
    }

    fn append(
        &self,
        next: &mut Moment,
        by: usize,
        lease: &Lease,
        record: &RestoreRecord,
    ) -> Result<(), StoreError> {
        let record = without_story(record);
        if self.flaw == Flaw::IdentityUnwritten && record.state == RestoreState::Loading {
            return Ok(());
        }
        let (adopts, run) = (record.state == RestoreState::Adopted, record.new_run_id.clone());
        let holds =
            next.held.get(&lease.restore_id).filter(|held| held.lease == *lease && held.until > next.now);
        let stale = holds.is_none();
        let mut shown = lease.clone();
        if self.flaw == Flaw::NoFence
            && let Some(held) = next.held.get(&lease.restore_id)
        {
            shown = held.lease.clone();
        }
        next.journal.append(self.clock(next.now, by), &shown, record)?;
        if stale {
            next.faults.insert(STALE_WRITE);
        }
        if adopts {
            next.adopted.extend(run);
        }
        Ok(())
    }

    /// What happens next if nothing goes wrong any more: requests are answered, whoever has ended is started again, and
    /// time passes only when there is nothing else.
    pub fn calm(&self, moment: &Moment) -> Moment {
        let asks = |wanted: fn(Lane, &Ask) -> bool| {
            moment.drivers.iter().enumerate().find_map(|(number, driver)| {
                let point = driver.at.as_ref()?;
                let (lane, _) = point.asks.iter().find(|(lane, ask)| wanted(*lane, ask))?;
                Some(Event::Answer(number, *lane))
            })
        };
        let request = || asks(|_, ask| !matches!(ask, Ask::Pause(_)));
        let pause = || asks(|lane, _| lane == Lane::Work);
        if let Some(event) = request().or_else(pause) {
            return self.after(moment, &event);
        }
        let mut next = moment.clone();
        if moment.is_leased() {
            next.now += LEASE_TTL;
        }
        self.start(&mut next, 0);
        next
    }
}

/// How often a driver pauses to try again, within the bounds.
const MOST_PAUSES: usize = 2;

/// A fault: two drivers held one lease.
pub const TWO_LEASES: &str = "two leases at once";
/// A fault: somebody wrote who had no lease.
pub const STALE_WRITE: &str = "a write without the lease";

/// A record as the model keeps it: two that differ by what is told to people are one.
pub(crate) fn without_story(record: &RestoreRecord) -> RestoreRecord {
    RestoreRecord { events: Vec::new(), ..record.clone() }
}

fn is_stale(held: &BTreeMap<String, Held>, ask: &Ask) -> bool {
    let (Ask::Append(lease, _) | Ask::Release(lease)) = ask else { return false };
    held.get(&lease.restore_id).is_some_and(|held| held.lease.fence > lease.fence)
}

fn asked(moment: &Moment, number: usize, lane: Lane) -> Option<&Ask> {
    moment.drivers[number].at.as_ref()?.ask(lane)
}
