//! What every process needs: tracked tasks and their drain, metrics, logs, the admin endpoint, signals, and the units
//! that configuration is written in. Knows nothing of conversations; every other crate may use it.

pub mod admin;
mod alarm;
mod human;
pub mod logs;
pub mod metrics;
pub mod signals;
mod tasks;
pub mod trace;

pub use admin::{Admin, Condition, Readiness, serve_admin};
pub use alarm::Alarm;
pub use human::{HumanBytes, HumanDuration, HumanError};
pub use logs::{LogConfig, LogFormat};
pub use metrics::{GaugeGuard, MetricsHandle};
pub use tasks::{Drain, Tasks};
pub use trace::TraceConfig;
