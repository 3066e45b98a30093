//! The agent's ports: control, and the command's three streams.

use vmtest_guest::proto;

use crate::plan::{ChannelKind, Device, PlanError, Planner};

/// The virtio-serial ports through which the host talks to the guest program.
#[derive(Clone, Copy, Debug, Default)]
pub struct AgentPorts;

impl Device for AgentPorts {
    fn plan(&self, planner: &mut Planner) -> Result<(), PlanError> {
        for name in [proto::CONTROL_PORT, proto::STDIN_PORT, proto::STDOUT_PORT, proto::STDERR_PORT]
        {
            planner.serial_port(name, ChannelKind::Agent)?;
        }
        planner.set_agent();
        Ok(())
    }
}
