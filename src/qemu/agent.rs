//! The agent's port.

use vmtest_guest::proto;

use crate::plan::{ChannelKind, Device, PlanError, Planner};

/// The virtio-serial port through which the host talks to the guest program.
///
/// The last of all ports: Linux finds them in order, and when this one is there, so are the others.
#[derive(Clone, Copy, Debug, Default)]
pub struct AgentPort;

impl Device for AgentPort {
    fn resumable(&self) -> Result<(), &'static str> {
        Ok(())
    }

    fn plan(&self, planner: &mut Planner) -> Result<(), PlanError> {
        planner.serial_port(proto::CONTROL_PORT, ChannelKind::Agent)?;
        planner.set_agent();
        Ok(())
    }
}
