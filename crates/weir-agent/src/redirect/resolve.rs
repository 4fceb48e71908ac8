//! [`Services`]: where services lead, as far as it is known, and rules with their endpoints put in. Pure.
//!
//! What is written in a rule stays as it is; the engine gets [`Services::expand`]ed rules, whose backends are those of the
//! rule and the endpoints of its services. What was heard last is what counts, however long ago.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use weir_api::proxy::ServiceView;
use weir_datapath::redirect::Transport;

use super::{
    overlap::Listeners,
    rules::{Backend, Rule, RuleSet},
    service::{ServiceBackends, ServiceText},
    text::{AddressText, ListenerText},
};
use crate::kubernetes::endpoints::{Endpoint, Nowhere, Protocol, ServicePort, Told};

/// A port of a service for one transport.
pub type ServiceKey = (ServicePort, Protocol);

/// Where services lead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    known: BTreeMap<ServiceKey, Vec<Endpoint>>,
    nowhere: BTreeMap<ServiceKey, Nowhere>,
    /// By namespace, why what is known may be old.
    troubles: BTreeMap<Arc<str>, String>,
    /// By rule, why what is known is not in effect.
    refused: BTreeMap<Arc<str>, String>,
}

/// What services these rules name, each for the transports of its rule.
pub fn services_of(rules: &RuleSet) -> BTreeSet<ServiceKey> {
    rules.values().flat_map(|rule| rule.services.iter().flat_map(|service| keys(rule, service))).collect()
}

fn keys(rule: &Rule, service: &ServiceBackends) -> impl Iterator<Item = ServiceKey> {
    let transports: BTreeSet<Transport> = rule.listeners.iter().map(|it| it.transport).collect();
    transports.into_iter().map(|transport| {
        let protocol = match transport {
            Transport::Tcp => Protocol::Tcp,
            Transport::Udp => Protocol::Udp,
        };
        (service.port.clone(), protocol)
    })
}

impl Services {
    /// Begins with what was known before.
    pub fn new(known: BTreeMap<ServiceKey, Vec<Endpoint>>) -> Self {
        Self { known, ..Self::default() }
    }

    /// What is known.
    pub fn known(&self) -> &BTreeMap<ServiceKey, Vec<Endpoint>> {
        &self.known
    }

    /// Forgets what no rule names any more.
    pub fn keep(&mut self, wanted: &BTreeSet<ServiceKey>) {
        self.known.retain(|key, _| wanted.contains(key));
        self.nowhere.retain(|key, _| wanted.contains(key));
        self.troubles.retain(|namespace, _| wanted.iter().any(|(port, _)| port.namespace == *namespace));
    }

    /// Takes what was told of a namespace. Says whether any endpoint is not what it was.
    pub fn take_in(&mut self, namespace: &Arc<str>, told: Told) -> bool {
        match told.trouble {
            Some(trouble) => self.troubles.insert(Arc::clone(namespace), trouble),
            None => self.troubles.remove(namespace),
        };
        let mut has_changed = false;
        for (key, endpoints) in told.ports {
            let endpoints = match endpoints {
                Ok(endpoints) => {
                    self.nowhere.remove(&key);
                    endpoints
                }
                Err(nowhere) => {
                    self.nowhere.insert(key.clone(), nowhere);
                    Vec::new()
                }
            };
            if self.known.get(&key) != Some(&endpoints) {
                self.known.insert(key, endpoints);
                has_changed = true;
            }
        }
        has_changed
    }

    /// The rules with endpoints among their backends. Rules without services stay the same memory.
    pub fn expand(&self, rules: &RuleSet) -> RuleSet {
        self.expand_changed(rules, &RuleSet::new())
    }

    /// The same for rules that were changed: one with a service of which nothing was heard yet keeps the backends that it had
    /// in `before`, so that nobody is turned away for the time that asking takes. One that is what it was stays the same memory.
    pub fn expand_changed(&self, rules: &RuleSet, before: &RuleSet) -> RuleSet {
        if rules.values().all(|rule| rule.services.is_empty()) {
            return rules.clone();
        }
        let listeners = listeners(rules);
        let expand = |rule: &Arc<Rule>| {
            if rule.services.is_empty() {
                return Arc::clone(rule);
            }
            let mut expanded = Rule::clone(rule);
            let mut seen: BTreeSet<SocketAddr> = rule.backends.iter().map(|it| it.address).collect();
            for service in &rule.services {
                let (mut usable, _) = self.usable(rule, service, &listeners);
                if !self.is_heard(rule, service)
                    && let Some(before) = before.get(&rule.name)
                {
                    usable.clone_from(&before.backends);
                }
                expanded.backends.extend(usable.into_iter().filter(|backend| seen.insert(backend.address)));
            }
            let same = before.get(&rule.name).filter(|known| ***known == expanded);
            same.map_or_else(|| Arc::new(expanded), Arc::clone)
        };
        rules.iter().map(|(name, rule)| (Arc::clone(name), expand(rule))).collect()
    }

    /// Which rules do not have the endpoints of now, and why.
    pub fn refuse(&mut self, refused: BTreeMap<Arc<str>, String>) {
        self.refused = refused;
    }

    /// How the services of rules are doing, by rule; `rules` are all of them, as written.
    pub fn states(&self, rules: &RuleSet) -> BTreeMap<Arc<str>, Vec<ServiceView>> {
        let named: Vec<_> = rules.values().filter(|rule| !rule.services.is_empty()).collect();
        if named.is_empty() {
            return BTreeMap::new();
        }
        let listeners = listeners(rules);
        named.into_iter().map(|rule| (Arc::clone(&rule.name), self.states_of(rule, &listeners))).collect()
    }

    fn states_of(&self, rule: &Rule, listeners: &Listeners) -> Vec<ServiceView> {
        rule.services
            .iter()
            .map(|service| {
                let (usable, left_out) = self.usable(rule, service, listeners);
                let nowhere = keys(rule, service).find_map(|key| self.nowhere.get(&key));
                let refused = self.refused.get(&rule.name);
                let refused = refused.map(|reason| format!("not in effect, those of before are: {reason}"));
                let trouble = refused
                    .or_else(|| self.troubles.get(&service.port.namespace).cloned())
                    .or_else(|| nowhere.map(ToString::to_string))
                    .or(left_out)
                    .or_else(|| (!self.is_heard(rule, service)).then(|| "not heard of yet".to_owned()))
                    .or_else(|| usable.is_empty().then(|| "it has no endpoints".to_owned()));
                let service = ServiceText(&service.port).to_string();
                ServiceView { service, endpoints: usable.len(), trouble }
            })
            .collect()
    }

    /// Whether it is known where the service leads, be it to nobody.
    fn is_heard(&self, rule: &Rule, service: &ServiceBackends) -> bool {
        keys(rule, service).all(|key| self.known.contains_key(&key) || self.nowhere.contains_key(&key))
    }

    /// Endpoints that can be backends of the rule, and why others cannot.
    fn usable(
        &self,
        rule: &Rule,
        service: &ServiceBackends,
        listeners: &Listeners,
    ) -> (Vec<Backend>, Option<String>) {
        let is_ipv4 = rule.listeners.first().is_none_or(|listener| listener.prefix.address.is_ipv4());
        // Backends are those of all listeners of a rule: each has to be there for all transports of these.
        let transports = keys(rule, service).count();
        let mut endpoints: BTreeMap<SocketAddr, (bool, usize)> = BTreeMap::new();
        let mut left_out = None;
        let mut has_others = false;
        for key in keys(rule, service) {
            for endpoint in self.known.get(&key).into_iter().flatten() {
                if endpoint.address.is_ipv4() != is_ipv4 {
                    has_others = true;
                    continue;
                }
                let transports = rule.listeners.iter().map(|it| it.transport);
                let caught = transports
                    .into_iter()
                    .find_map(|transport| listeners.catching(transport, endpoint.address, &rule.listeners));
                if let Some((listener, owner)) = caught {
                    left_out = Some(format!(
                        "{} is left out: it is diverted itself, by {} of {owner}",
                        AddressText(endpoint.address),
                        ListenerText(listener)
                    ));
                    continue;
                }
                let (takes_new, count) = endpoints.entry(endpoint.address).or_insert((true, 0));
                *takes_new &= endpoint.takes_new;
                *count += 1;
            }
        }
        if let Some(address) = endpoints.iter().find(|(_, (_, count))| *count < transports).map(|it| it.0) {
            let address = AddressText(*address);
            left_out = Some(format!(
                "{address} is left out: it serves TCP or UDP alone, the rule has listeners of both; make two rules of it"
            ));
        }
        endpoints.retain(|_, (_, count)| *count == transports);
        if endpoints.is_empty() && has_others {
            let (wanted, there) = if is_ipv4 { ("IPv4", "IPv6") } else { ("IPv6", "IPv4") };
            left_out = Some(format!("its endpoints are {there}, the listener is {wanted}"));
        }
        let share = service.share;
        let backend = |(address, (takes_new, _)): (SocketAddr, (bool, usize))| Backend {
            address,
            weight: share.weight,
            is_drained: share.is_drained || !takes_new,
        };
        (endpoints.into_iter().map(backend).collect(), left_out)
    }
}

/// Who listens where, under the names of rules.
fn listeners(rules: &RuleSet) -> Listeners {
    let mut listeners = Listeners::default();
    for rule in rules.values() {
        rule.listeners.iter().for_each(|listener| listeners.add(*listener, Arc::clone(&rule.name)));
    }
    listeners
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redirect::{rules::Rules, service::parse_service};

    const FILE: &str = "
rules:
  - {name: web, listen: [tcp:10.0.0.10:80], backends: [10.1.0.1:8080, 'service:shop/web:http,weight=3']}
  - {name: six, listen: ['tcp:[fd00::10]:80'], backends: [service:shop/web:http]}
  - {name: plain, listen: [udp:10.0.0.10:53], backends: [10.1.0.1:53]}
";

    fn key(text: &str) -> ServiceKey {
        (parse_service(text).unwrap().unwrap().port, Protocol::Tcp)
    }

    fn endpoint(address: &str, takes_new: bool) -> Endpoint {
        Endpoint { address: address.parse().unwrap(), takes_new }
    }

    fn told(endpoints: Result<Vec<Endpoint>, Nowhere>, trouble: Option<&str>) -> Told {
        let ports = BTreeMap::from([(key("service:shop/web:http"), endpoints)]);
        Told { ports, trouble: trouble.map(str::to_owned) }
    }

    fn backends(services: &Services, rules: &RuleSet, name: &str) -> Vec<String> {
        services.expand(rules)[name].backends.iter().map(ToString::to_string).collect()
    }

    fn troubles(services: &Services, rules: &RuleSet, name: &str) -> Vec<Option<String>> {
        services.states(rules)[name].clone().into_iter().map(|state| state.trouble).collect()
    }

    #[test]
    fn endpoints_become_backends_of_the_family_of_the_listener() {
        let rules = Rules::read(FILE).unwrap().rules;
        let mut services = Services::default();
        let shop: Arc<str> = "shop".into();
        assert_eq!(backends(&services, &rules, "web"), ["10.1.0.1:8080"]);
        assert_eq!(troubles(&services, &rules, "web"), [Some("not heard of yet".to_owned())]);
        let endpoints = vec![
            endpoint("10.1.0.1:8080", true),
            endpoint("10.1.0.2:8080", true),
            endpoint("10.1.0.3:8080", false),
        ];
        assert!(services.take_in(&shop, told(Ok(endpoints.clone()), None)));
        assert!(!services.take_in(&shop, told(Ok(endpoints), None)));
        assert_eq!(
            backends(&services, &rules, "web"),
            ["10.1.0.1:8080", "10.1.0.2:8080,weight=3", "10.1.0.3:8080,weight=3,drain"]
        );
        assert_eq!(troubles(&services, &rules, "web"), [None]);
        assert!(backends(&services, &rules, "six").is_empty());
        assert_eq!(
            troubles(&services, &rules, "six"),
            [Some("its endpoints are IPv4, the listener is IPv6".to_owned())]
        );
        assert!(Arc::ptr_eq(&services.expand(&rules)["plain"], &rules["plain"]));
    }

    #[test]
    fn endpoints_are_backends_where_they_serve_every_transport_of_the_rule() {
        let file = "
rules:
  - {name: dns, listen: [tcp:10.0.0.10:53, udp:10.0.0.10:53], backends: [service:shop/dns:53]}
";
        let rules = Rules::read(file).unwrap().rules;
        let mut services = Services::default();
        let shop: Arc<str> = "shop".into();
        let port = parse_service("service:shop/dns:53").unwrap().unwrap().port;
        let mut ports = BTreeMap::new();
        for (protocol, other) in [(Protocol::Tcp, 5353), (Protocol::Udp, 5354)] {
            let endpoints = vec![
                endpoint("10.1.0.1:53", protocol == Protocol::Tcp),
                endpoint(&format!("10.1.0.2:{other}"), true),
            ];
            ports.insert((port.clone(), protocol), Ok(endpoints));
        }
        assert!(services.take_in(&shop, Told { ports, trouble: None }));
        assert_eq!(backends(&services, &rules, "dns"), ["10.1.0.1:53,drain"]);
        let trouble = troubles(&services, &rules, "dns").remove(0).unwrap();
        assert!(trouble.starts_with("10.1.0.2:5353 is left out"), "{trouble}");
    }

    #[test]
    fn a_rule_that_is_changed_keeps_its_backends_until_the_service_is_heard_of() {
        let before = Rules::read(FILE).unwrap().rules;
        let after = Rules::read(
            &FILE.replace("10.1.0.1:8080, 'service:shop/web:http,weight=3'", "service:shop/web:http"),
        );
        let after = after.unwrap().rules;
        let mut services = Services::default();
        let of = |services: &Services| {
            let expanded = services.expand_changed(&after, &services.expand(&before));
            expanded["web"].backends.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(of(&services), ["10.1.0.1:8080"]);
        assert!(services.take_in(&"shop".into(), told(Ok(vec![endpoint("10.1.0.2:8080", true)]), None)));
        assert_eq!(of(&services), ["10.1.0.2:8080"]);
    }

    #[test]
    fn what_is_known_stays_while_nothing_is_heard_and_goes_when_it_is_gone() {
        let rules = Rules::read(FILE).unwrap().rules;
        let known = BTreeMap::from([(key("service:shop/web:http"), vec![endpoint("10.1.0.2:80", true)])]);
        let mut services = Services::new(known);
        let shop: Arc<str> = "shop".into();
        let silence = Told { trouble: Some("the API server is not heard of".to_owned()), ..Told::default() };
        assert!(!services.take_in(&shop, silence));
        assert_eq!(backends(&services, &rules, "web").len(), 2);
        assert_eq!(troubles(&services, &rules, "web"), [Some("the API server is not heard of".to_owned())]);

        let nowhere = Nowhere::NoService { namespace: "shop".into(), service: "web".into() };
        assert!(services.take_in(&shop, told(Err(nowhere), None)));
        assert_eq!(backends(&services, &rules, "web"), ["10.1.0.1:8080"]);
        assert_eq!(troubles(&services, &rules, "web"), [Some("there is no service shop/web".to_owned())]);
        assert!(services.take_in(&shop, told(Ok(vec![endpoint("10.1.0.2:80", true)]), None)));
        services.keep(&BTreeSet::new());
        assert_eq!(services, Services::default());
    }

    #[test]
    fn an_endpoint_that_is_diverted_itself_is_left_out() {
        let rules = Rules::read(FILE).unwrap().rules;
        let mut services = Services::default();
        let both = vec![endpoint("10.0.0.10:80", true), endpoint("10.1.0.2:80", true)];
        services.take_in(&"shop".into(), told(Ok(both), None));
        assert_eq!(backends(&services, &rules, "web"), ["10.1.0.1:8080", "10.1.0.2:80,weight=3"]);
        let said = troubles(&services, &rules, "web").remove(0).unwrap();
        assert_eq!(said, "10.0.0.10:80 is left out: it is diverted itself, by tcp:10.0.0.10:80 of web");
    }
}
