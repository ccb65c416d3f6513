//! What the fuzz targets do with their bytes. The crates these are about include the same files in
//! their tests, for a short replay; the ring's is in `parador_virtio::testing::hostile`, those of PCI in
//! `parador_machine::pci::testing::hostile`.

pub mod blk_request;
pub mod config;
pub mod kernel;
pub mod structured;
pub mod translate;
pub mod vhost_user_frontend;
pub mod vhost_user_message;
pub mod vhost_user_server;
pub mod zoned_image;
