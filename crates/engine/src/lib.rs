//! From a tree of keys to a running virtual machine.
//!
//! First a [`Plan`]: every decision made, types instead of text, nothing opened. It is pure, so what
//! a description means can be tested anywhere. Then the machine is put together and started.
//!
//! ```
//! use parador_config::{Source, Tree};
//! use parador_engine::{Plan, Processors};
//!
//! let (tree, mut diagnostics) = Tree::from_sources(&[Source::File {
//!     name: "web.conf",
//!     bytes: b"boot.kernel=/boot/vmlinuz\ncpus=4\nthreads=2\n",
//! }]);
//! let keys = tree.check(&mut diagnostics);
//! let plan = Plan::new(&keys, &mut diagnostics).expect("nothing is wrong with it");
//! assert_eq!(plan.processors, Processors { sockets: 1, cores: 2, threads: 2 });
//! ```

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test stops at the first surprise"))]

mod alone;
mod attach;
mod console;
mod device;
mod inherited;
mod launch;
mod make;
mod net;
mod open;
mod plan;
mod remote;
mod zones;

pub use alone::Alone;
pub use device::{Aio, BALLOON_CONFIG, Balloon, Block, DevicePlan, Model, Vsock};
pub use inherited::inherited;
pub use launch::{Running, Stdio, launch};
pub use net::{Create, Interface, InterfaceKind, Net, Tap, mac};
pub use open::{Openable, Opening};
pub use parador_devices::net::tap;
pub use parador_devices::socket::Socket;
pub use parador_machine::{Outcome, Report, hardware_virtualization};
pub use parador_vhost_user::server::Server;
pub use parador_virtio::EventFd;
pub use plan::{Backing, Boot, Domain, HostFile, Memory, Plan, Processors};
pub use remote::Remote;
pub use zones::Zones;
