//! Event channels: named virtio-serial ports.

use crate::plan::{ChannelKind, Device, PlanError, Planner};

/// A named virtio-serial port that carries one JSON object a line from the guest
/// ([`vmtest_guest::proto::event`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventPort {
    /// The port's name, as the guest finds it in `/sys/class/virtio-ports/*/name`.
    pub name: String,
}

impl Device for EventPort {
    fn resumable(&self) -> Result<(), &'static str> {
        Ok(())
    }

    fn plan(&self, planner: &mut Planner) -> Result<(), PlanError> {
        if self.name.is_empty() || self.name.contains(['/', '\n', '\0']) {
            return Err(PlanError::OutOfRange {
                what: "event channel name",
                given: format!("`{}`", self.name.escape_default()),
                range: "a name is not empty and has no slash and no line break".into(),
            });
        }
        planner.serial_port(&self.name, ChannelKind::Events)
    }
}
