//! Which row of the ledger is which observation point.
//!
//! Shared between the thread that attaches and the thread that reads. Rows are given out once and never again: records
//! of an interface that is gone may still lie in the ring buffer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use weir_flow::{Direction, Point, PointId, Role};
use weir_packet::Link;

use crate::attach::{AttachError, Device};

/// An observation point and what its packets look like.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) point: Arc<Point>,
    pub(super) link: Link,
}

/// The registry; the number of a row is its place in the list. Ingress comes first, egress next.
#[derive(Clone)]
pub(super) struct Points {
    rows: Arc<Mutex<Vec<Listed>>>,
    most: usize,
    netns: Option<Arc<str>>,
}

impl Points {
    /// A registry for a ledger with `rows` rows.
    pub(super) fn new(rows: u32, netns: Option<Arc<str>>) -> Self {
        let points = Self { rows: Arc::default(), most: rows as usize, netns };
        let unlisted =
            Device { index: 0, name: "(unlisted)".into(), link: Link::Ethernet, role: Role::Other };
        points.push(&unlisted);
        points
    }

    /// Gives an interface two rows; returns the first one, and its points.
    pub(super) fn list(&self, device: &Device) -> Result<(u16, [Arc<Point>; 2]), AttachError> {
        if self.rows().len() + 2 > self.most {
            return Err(AttachError::NoRow(Arc::clone(&device.name)));
        }
        Ok(self.push(device))
    }

    /// Everything listed so far.
    pub(super) fn all(&self) -> Vec<Listed> {
        self.rows().clone()
    }

    fn push(&self, device: &Device) -> (u16, [Arc<Point>; 2]) {
        let mut rows = self.rows();
        let row = u16::try_from(rows.len()).expect("the number of rows is far below that");
        let point = |offset, direction| {
            Arc::new(Point {
                id: PointId(u32::from(row) + offset),
                netns: self.netns.clone(),
                ifindex: device.index,
                interface: Arc::clone(&device.name),
                direction,
                role: device.role,
            })
        };
        let points = [point(0, Direction::Ingress), point(1, Direction::Egress)];
        rows.extend(points.iter().map(|point| Listed { point: Arc::clone(point), link: device.link }));
        (row, points)
    }

    fn rows(&self) -> MutexGuard<'_, Vec<Listed>> {
        // The list only grows, by whole elements, so a panic elsewhere does not matter here.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_never_given_out_twice_and_end() {
        let points = Points::new(6, None);
        let device = Device { index: 7, name: "veth0".into(), link: Link::Ip, role: Role::Other };
        let (first, [ingress, egress]) = points.list(&device).unwrap();
        let (second, [again, _]) = points.list(&device).unwrap();
        assert_eq!((first, second), (2, 4));
        assert_eq!((ingress.direction, egress.direction), (Direction::Ingress, Direction::Egress));
        assert_ne!(ingress.id, again.id);
        assert!(matches!(points.list(&device), Err(AttachError::NoRow(_))));
        assert_eq!(points.all().len(), 6);
    }
}
