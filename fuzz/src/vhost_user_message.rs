//! The vhost-user codec under any bytes.
//!
//! Shared by the fuzz target and by a replay among the tests of the crate.

use parador_vhost_user::message::{BackendRequest, FrontendRequest, HEADER_LEN, Message};

/// Parses the message in `bytes`, in both directions.
///
/// # Panics
/// What was understood means something else when it is written again.
pub fn exercise(bytes: &[u8]) {
    let Some((header, payload)) = bytes.split_first_chunk::<HEADER_LEN>() else { return };
    let Ok(mut message) = Message::from_header(*header) else { return };
    message.payload = payload.into();
    if let Ok(request) = FrontendRequest::parse(&message) {
        assert_eq!(FrontendRequest::parse(&request.message()).as_ref(), Ok(&request));
        assert_eq!(request.number(), message.request);
        assert!(request.descriptors().start() <= request.descriptors().end());
    }
    if let Ok(request) = BackendRequest::parse(&message) {
        assert_eq!(BackendRequest::parse(&request.message()), Ok(request));
    }
    drop(message.expect_reply_to(u32::from(header[0])));
}
