//! What runs on the host beside a machine.

/// Something of the host's that lives as long as the machine: an HTTP server for the guest.
pub trait Service: std::fmt::Debug + Send + Sync {
    /// Called when the machine is started, before QEMU. What it returns is dropped when the machine
    /// is gone, and that ends the service.
    ///
    /// # Errors
    /// The system's; the machine is not started then.
    fn start(&self) -> std::io::Result<Box<dyn std::any::Any + Send + Sync>>;
}
