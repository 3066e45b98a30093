//! What a machine is put together from.

use std::path::Path;

use super::error::PlanError;
use super::planner::Planner;

/// Something a machine has.
///
/// Implement it to add a device that vmtest does not know; `examples/custom_device.rs` shows how.
pub trait Device: std::fmt::Debug + Send + Sync {
    /// Adds the device to the plan: arguments, kernel parameters, modules, files, mounts.
    ///
    /// Called once a plan, in the order of [`crate::options::Options::devices`]. It must be pure: the
    /// same planner state gives the same additions.
    ///
    /// # Errors
    /// [`PlanError`] when the device cannot be had as asked for, on this architecture or beside
    /// another device.
    fn plan(&self, planner: &mut Planner) -> Result<(), PlanError>;

    /// Whether a guest that was saved with it may be resumed later: what the guest knows of it then must
    /// still be true. The error says what would not be, as the end of "cold: ".
    ///
    /// # Errors
    /// The reason. By default that nothing is known of it.
    fn resumable(&self) -> Result<(), &'static str> {
        Err("it has a device of which vmtest does not know whether it can be saved")
    }

    /// Whether the guest's root file system is on it, so that no image has to bring one.
    fn is_root(&self) -> bool {
        false
    }

    /// The directory of the host that is the guest's root and that the guest cannot write to.
    fn read_only_root(&self) -> Option<&Path> {
        None
    }
}
