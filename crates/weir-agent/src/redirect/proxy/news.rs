//! News from outside: backends that checks have brought up, endpoints that services have now.
//!
//! They are tried on a copy of the wanted state, which is kept only if the kernel takes it: all of them at once, or, where it
//! refuses that, half of them, down to the one that does not fit. What is refused changes nothing and stands in nobody's way;
//! it is tried again once there may be room. What makes less of a backend needs no room, and is none of this.

use std::{fmt, sync::Arc, time::Instant};

use weir_datapath::redirect::{Desired, RedirectError};

use crate::{
    causes::with_causes,
    redirect::{engine::Engine, health::Target, rules::Rule, text::AddressText},
};

/// Something that was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// The services of a rule have other endpoints: the rule with these.
    Endpoints(Arc<Rule>),
    /// A backend is well again.
    Up(Target),
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoints(rule) => {
                write!(f, "rule {}: endpoints of now are not in effect, those of before are", rule.name)
            }
            Self::Up(Target { rule, backend }) => {
                write!(f, "rule {rule}: backend {} is up, and takes nothing yet", AddressText(*backend))
            }
        }
    }
}

/// News that are not in effect.
#[derive(Debug, Default)]
pub(super) struct Waiting(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    news: News,
    /// Whether it is to be tried.
    is_due: bool,
    /// Why it is not in effect, if it was tried.
    refused: Option<String>,
}

impl Waiting {
    /// A backend is well again. Where that is known already, nothing changes.
    pub(super) fn is_up(&mut self, target: &Target) {
        let news = News::Up(target.clone());
        if !self.0.iter().any(|entry| entry.news == news) {
            self.0.push(Entry { news, is_due: true, refused: None });
        }
    }

    /// A backend is not well, or not checked any more.
    pub(super) fn is_not_up(&mut self, target: &Target) {
        self.0.retain(|entry| !matches!(&entry.news, News::Up(it) if it == target));
    }

    /// These rules have endpoints that are not in effect, no others. What was refused already is not tried again for that.
    pub(super) fn have_endpoints(&mut self, rules: Vec<Arc<Rule>>) {
        self.0.retain(|entry| match &entry.news {
            News::Endpoints(rule) => rules.contains(rule),
            News::Up(_) => true,
        });
        for rule in rules {
            let news = News::Endpoints(rule);
            if !self.0.iter().any(|entry| entry.news == news) {
                self.0.push(Entry { news, is_due: true, refused: None });
            }
        }
    }

    /// Forgets backends that nobody checks any more.
    pub(super) fn keep(&mut self, is_checked: impl Fn(&Target) -> bool) {
        self.0.retain(|entry| match &entry.news {
            News::Endpoints(_) => true,
            News::Up(target) => is_checked(target),
        });
    }

    /// There may be room now.
    pub(super) fn try_again(&mut self) {
        self.0.iter_mut().for_each(|entry| entry.is_due = true);
    }

    /// What is to be tried.
    pub(super) fn due(&self) -> Vec<News> {
        self.0.iter().filter(|entry| entry.is_due).map(|entry| entry.news.clone()).collect()
    }

    /// Whether anything is to be tried.
    pub(super) fn is_due(&self) -> bool {
        self.0.iter().any(|entry| entry.is_due)
    }

    /// It is in effect.
    pub(super) fn took(&mut self, news: &News) {
        self.0.retain(|entry| entry.news != *news);
    }

    /// It does not fit. Says whether that is new.
    pub(super) fn refused(&mut self, news: &News, error: &RedirectError) -> bool {
        let Some(entry) = self.0.iter_mut().find(|entry| entry.news == *news) else { return false };
        entry.is_due = false;
        entry.refused.replace(with_causes(error)).is_none()
    }

    /// What was refused, and why.
    pub(super) fn troubles(&self) -> impl Iterator<Item = (&News, &str)> {
        self.0.iter().filter_map(|entry| Some((&entry.news, entry.refused.as_deref()?)))
    }
}

/// Brings the kernel to the wanted state with these news, as far as they fit. Returns those that do not, and why; fails
/// where it is not for them.
pub(super) fn take_in(
    engine: &mut Engine,
    news: &[News],
    now: Instant,
    publish: &mut impl FnMut(&Desired) -> Result<(), RedirectError>,
) -> Result<Vec<(News, RedirectError)>, RedirectError> {
    let mut refused = Vec::new();
    if let Err(error) = attempt(engine, news, now, publish) {
        if !error.is_refusal() || news.is_empty() {
            return Err(error);
        }
        // What else has changed does not wait for them.
        publish(&engine.desired())?;
        divide(engine, news, now, publish, error, &mut refused)?;
    }
    Ok(refused)
}

fn attempt(
    engine: &mut Engine,
    news: &[News],
    now: Instant,
    publish: &mut impl FnMut(&Desired) -> Result<(), RedirectError>,
) -> Result<(), RedirectError> {
    if news.is_empty() {
        return publish(&engine.desired());
    }
    let mut next = engine.clone();
    apply(&mut next, news, now);
    publish(&next.desired())?;
    *engine = next;
    Ok(())
}

/// These were refused together: tries each half.
fn divide(
    engine: &mut Engine,
    news: &[News],
    now: Instant,
    publish: &mut impl FnMut(&Desired) -> Result<(), RedirectError>,
    error: RedirectError,
    refused: &mut Vec<(News, RedirectError)>,
) -> Result<(), RedirectError> {
    if let [one] = news {
        refused.push((one.clone(), error));
        return Ok(());
    }
    let (first, second) = news.split_at(news.len() / 2);
    for half in [first, second] {
        match attempt(engine, half, now, publish) {
            Err(error) if error.is_refusal() => divide(engine, half, now, publish, error, refused)?,
            outcome => outcome?,
        }
    }
    Ok(())
}

fn apply(engine: &mut Engine, news: &[News], now: Instant) {
    let mut rules = engine.rules().clone();
    let mut is_other = false;
    for rule in
        news.iter().filter_map(|news| if let News::Endpoints(rule) = news { Some(rule) } else { None })
    {
        rules.insert(Arc::clone(&rule.name), Arc::clone(rule));
        is_other = true;
    }
    if is_other {
        engine.replace(rules, now);
    }
    for target in news.iter().filter_map(|news| if let News::Up(target) = news { Some(target) } else { None })
    {
        engine.raise(target);
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, net::SocketAddr, slice};

    use weir_datapath::redirect::BackendId;

    use super::*;
    use crate::redirect::{
        engine::Orders,
        rules::{Backend, Rules},
    };

    const FILE: &str = "
rules:
  - {name: a, listen: [tcp:10.0.0.1:80], backends: [10.1.0.1:80], health: tcp}
  - {name: b, listen: [tcp:10.0.0.2:80], backends: [10.1.0.2:80], health: tcp}
  - {name: c, listen: [tcp:10.0.0.3:80], backends: [10.1.0.3:80], health: tcp}
";

    fn engine() -> Engine {
        Engine::resume(&Desired::default(), Rules::read(FILE).unwrap().rules, Orders::default())
    }

    /// A rule with so many backends.
    fn endpoints(engine: &Engine, name: &str, count: u8) -> News {
        let mut rule = Rule::clone(&engine.rules()[name]);
        let backend = |host| Backend { address: ([10, 2, 0, host], 80).into(), weight: 1, is_drained: false };
        rule.backends = (1..=count).map(backend).collect();
        News::Endpoints(Arc::new(rule))
    }

    fn up(name: &str, host: u8) -> News {
        News::Up(Target { rule: name.into(), backend: SocketAddr::from(([10, 1, 0, host], 80)) })
    }

    /// A kernel with room for so many backends that take connections.
    struct Kernel {
        room: usize,
        has: Desired,
        refusals: usize,
    }

    impl Kernel {
        fn take(&mut self, engine: &mut Engine, news: &[News]) -> Vec<News> {
            let mut publish = |desired: &Desired| {
                let used = desired.rules.iter().map(|rule| rule.table.iter().collect::<BTreeSet<_>>().len());
                if used.sum::<usize>() > self.room {
                    self.refusals += 1;
                    return Err(RedirectError::BackendNumber(BackendId(40_000)));
                }
                self.has = desired.clone();
                Ok(())
            };
            let refused = take_in(engine, news, Instant::now(), &mut publish).unwrap();
            assert!(self.has == engine.desired(), "the copy that the kernel took is kept, no other");
            refused.into_iter().map(|(news, _)| news).collect()
        }
    }

    #[test]
    fn what_does_not_fit_is_named_and_all_the_rest_is_in_effect() {
        let mut engine = engine();
        let mut kernel = Kernel { room: 8, has: Desired::default(), refusals: 0 };
        assert_eq!(kernel.take(&mut engine, &[]), []);
        let news = [endpoints(&engine, "a", 2), endpoints(&engine, "b", 9), endpoints(&engine, "c", 3)];
        assert_eq!(kernel.take(&mut engine, &news), news[1..2]);
        let backends = |engine: &Engine| ["a", "b", "c"].map(|name| engine.rules()[name].backends.len());
        assert_eq!(backends(&engine), [2, 1, 3]);
        // What goes down is published, whatever else is refused.
        let dead = Target { rule: "b".into(), backend: ([10, 1, 0, 2], 80).into() };
        engine.observe(&dead, Err("refused".to_owned()));
        let too_many = endpoints(&engine, "b", 9);
        assert_eq!(kernel.take(&mut engine, slice::from_ref(&too_many)), [too_many]);
        assert_eq!(kernel.has.rules.iter().filter(|rule| rule.table.is_empty()).count(), 1);
    }

    #[test]
    fn a_backend_comes_up_when_there_is_room_for_it() {
        let mut engine = engine();
        let targets: Vec<Target> = engine.targets().map(|(target, _)| target.clone()).collect();
        for target in &targets {
            engine.observe(target, Err("refused".to_owned()));
        }
        let mut kernel = Kernel { room: 2, has: Desired::default(), refusals: 0 };
        let news = [up("a", 1), up("b", 2), up("c", 3)];
        assert_eq!(kernel.take(&mut engine, &news), news[2..]);
        kernel.room = 3;
        assert_eq!(kernel.take(&mut engine, &news[2..]), []);
        assert!(kernel.has.rules.iter().all(|rule| rule.table.len() == 1));
        assert_eq!(kernel.refusals, 3, "all, then the second half, then its second half");
    }

    #[test]
    fn a_failure_that_is_not_for_the_news_is_told_and_keeps_nothing() {
        let mut engine = engine();
        let before = engine.desired();
        let news = [endpoints(&engine, "a", 2), up("b", 2)];
        let mut calls = 0;
        let mut publish = |_: &Desired| {
            calls += 1;
            Err(RedirectError::ReadOnly)
        };
        assert!(take_in(&mut engine, &news, Instant::now(), &mut publish).is_err());
        assert_eq!((calls, engine.desired() == before), (1, true));
    }

    #[test]
    fn what_was_refused_is_said_once_and_waits_for_room() {
        let engine = engine();
        let (big, bigger) = (endpoints(&engine, "a", 8), endpoints(&engine, "a", 9));
        let rule =
            |news: &News| if let News::Endpoints(rule) = news { Arc::clone(rule) } else { unreachable!() };
        let error = RedirectError::BackendNumber(BackendId(40_000));
        let mut waiting = Waiting::default();
        waiting.have_endpoints(vec![rule(&big)]);
        assert_eq!(waiting.due(), slice::from_ref(&big));
        assert!(waiting.refused(&big, &error));
        waiting.have_endpoints(vec![rule(&big)]);
        assert!(!waiting.is_due());
        waiting.try_again();
        assert_eq!(waiting.due(), slice::from_ref(&big));
        assert!(!waiting.refused(&big, &error), "it was said");
        assert_eq!(waiting.troubles().count(), 1);
        // Others are tried at once.
        waiting.have_endpoints(vec![rule(&bigger)]);
        assert_eq!(waiting.due(), slice::from_ref(&bigger));
        waiting.took(&bigger);
        assert!(!waiting.is_due() && waiting.troubles().next().is_none());
        let target = Target { rule: "a".into(), backend: ([10, 1, 0, 1], 80).into() };
        waiting.is_up(&target);
        waiting.is_up(&target);
        assert_eq!(waiting.due().len(), 1);
        waiting.is_not_up(&target);
        assert!(!waiting.is_due());
    }
}
