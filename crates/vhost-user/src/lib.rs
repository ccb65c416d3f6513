//! A virtio device at the other end of a socket: the vhost-user protocol.
//!
//! [`message`] is the protocol as bytes, without any socket; [`socket`] carries messages and the
//! descriptors beside them. [`server`] is the back-end: any device, for any front-end. [`frontend`]
//! is the other side: a device whose back-end is another process.
//!
//! ```
//! use std::os::unix::net::UnixStream;
//! use parador_vhost_user::message::{FrontendRequest, Payload};
//! use parador_vhost_user::socket::Connection;
//!
//! let (ours, theirs) = UnixStream::pair()?;
//! let (front, back) = (Connection::new(ours), Connection::new(theirs));
//! front.send(&FrontendRequest::GetQueueNum.message(), &[])?;
//! let (request, _) = back.receive()?.expect("one was sent");
//! assert_eq!(FrontendRequest::parse(&request), Ok(FrontendRequest::GetQueueNum));
//! back.send(&request.reply(4u64.payload()), &[])?;
//! # Ok::<(), std::io::Error>(())
//! ```

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test stops at the first surprise"))]

pub mod frontend;
pub mod message;
pub mod server;
pub mod socket;
mod wait;
