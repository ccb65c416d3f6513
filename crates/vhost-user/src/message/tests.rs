use proptest::prelude::*;

use super::*;

/// Every front-end message, as real peers send it.
fn golden() -> Vec<(FrontendRequest, usize)> {
    use FrontendRequest as R;
    let state = VringState { index: 1, num: 256 };
    let region = MemoryRegion { guest_address: 0xc_0000, size: 4096, user_address: 7, mmap_offset: 0xc_0000 };
    let config = Config { offset: 0, flags: ConfigFlags::Writable, data: vec![0; 57] };
    let inflight = Inflight { mmap_size: 8448, mmap_offset: 0, queues: 4, queue_size: 128 };
    let ring = VringFd { index: 3, has_fd: true };
    vec![
        (R::GetFeatures, 0),
        (R::SetFeatures(1 << 30), 8),
        (R::SetMemTable(vec![region; 3]), 8 + 3 * 32),
        (R::SetLogBase(LogBase::Shared(Log { size: 4096, offset: 0 })), 16),
        (R::SetLogBase(LogBase::Address(5)), 8),
        (R::SetVringNum(state), 8),
        (
            R::SetVringAddr(VringAddr {
                index: 1,
                descriptor: 2,
                used: 3,
                available: 4,
                ..VringAddr::default()
            }),
            40,
        ),
        (R::SetVringKick(ring), 8),
        (R::SetVringCall(VringFd { index: 3, has_fd: false }), 8),
        (R::IotlbMsg(Iotlb::default()), 32),
        (R::GetConfig(config), 12 + 57),
        (R::SetInflightFd(inflight), 24),
        (R::AddMemReg(region), 40),
        (R::RemMemReg(region), 40),
        (R::GetSharedObject([9; 16]), 16),
        (R::SetDeviceStateFd(DeviceStateTransfer { direction: StateDirection::Load, phase: 0 }), 8),
        (R::GetVringBaseSkipDrain(state), 8),
    ]
}

#[test]
fn messages_have_the_sizes_that_are_on_the_wire() {
    for (request, size) in golden() {
        let message = request.message();
        assert_eq!(message.payload.len(), size, "{request:?}");
        assert_eq!(message.size as usize, size, "{request:?}");
        assert_eq!(message.flags, 1, "{request:?}");
        assert_eq!(FrontendRequest::parse(&message).unwrap(), request);
        assert!(FrontendRequest::parse(&message.reply(message.payload.clone())).is_err(), "a reply is none");
    }
    let sizes = SharedMemoryConfig { sizes: Box::new([0; MAX_SHARED_REGIONS]) };
    assert_eq!(sizes.payload().len(), 2056);
    assert_eq!(BackendRequest::ShmemMap(Mmap::default()).message().payload.len(), 40);
}

#[test]
fn the_number_of_shared_regions_is_that_of_those_that_have_a_size() {
    let mut sizes = Box::new([0; MAX_SHARED_REGIONS]);
    (sizes[0], sizes[7]) = (4096, 8192);
    let bytes = SharedMemoryConfig { sizes: sizes.clone() }.payload();
    assert_eq!(bytes[..4], 2u32.to_ne_bytes());
    assert_eq!(SharedMemoryConfig::parse(&bytes).unwrap().sizes, sizes);
}

#[test]
fn fields_are_in_the_order_of_the_specification() {
    let addr = VringAddr { index: 1, flags: 1, descriptor: 2, used: 3, available: 4, log: 5 };
    let words: Vec<u64> = addr.payload().chunks(8).map(|word| u64::parse(word).unwrap()).collect();
    assert_eq!(words, [1 << 32 | 1, 2, 3, 4, 5], "descriptor, used, available, log");
}

#[test]
fn an_inflight_region_may_lack_the_padding() {
    let inflight = Inflight { mmap_size: 1, mmap_offset: 2, queues: 3, queue_size: 4 };
    let bytes = inflight.payload();
    assert_eq!(Inflight::parse(&bytes[..20]).unwrap(), inflight);
    assert_eq!(Inflight::parse(&bytes[..21]), Err(Wrong::Size(24)));
}

#[test]
fn a_memory_table_may_have_room_for_more_regions_than_it_has() {
    let region = MemoryRegion { guest_address: 1, size: 2, user_address: 3, mmap_offset: 4 };
    let mut bytes = vec![region].payload();
    bytes.extend([0xff; 32]);
    assert_eq!(Vec::<MemoryRegion>::parse(&bytes).unwrap(), [region]);
    assert_eq!(Vec::<MemoryRegion>::parse(&bytes[..71]), Err(Wrong::Size(40)));
}

#[test]
fn what_is_wrong_is_said() {
    let said = |request: u32, payload: &[u8]| {
        FrontendRequest::parse(&Message::new(request, payload.into())).unwrap_err().to_string()
    };
    assert_eq!(said(8, &[0; 4]), "message 8 has 4 bytes, not 8");
    assert_eq!(said(1, &[0]), "message 1 has 1 bytes, not 0");
    assert_eq!(said(46, &[]), "there is no request 46");
    assert_eq!(said(0, &[]), "there is no request 0");
    assert!(said(5, &[0; 8]).contains("1 to 8 regions"));
    assert_eq!(said(5, &2u64.payload()), "message 5 has 8 bytes, not 72");
    assert!(said(12, &512u64.payload()).contains("reserved"));
    let oversized = Message::from_header(header(1, 1, 8193)).unwrap_err();
    assert!(matches!(oversized, MessageError::TooLong { .. }), "{oversized}");
    let version = Message::from_header(header(1, 2, 0)).unwrap_err();
    assert!(matches!(version, MessageError::Version { version: 2, .. }), "{version}");
}

fn header(request: u32, flags: u32, size: u32) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    for (at, field) in bytes.chunks_mut(4).zip([request, flags, size]) {
        at.copy_from_slice(&field.to_ne_bytes());
    }
    bytes
}

#[test]
fn replies_have_exactly_the_flags_that_qemu_takes() {
    let request = FrontendRequest::GetFeatures.message().with_need_reply();
    let reply = request.reply(5u64.payload());
    assert_eq!(reply.flags, 0x5);
    assert_eq!(reply.clone().expect_reply_to(1).unwrap().payload, 5u64.payload());
    assert!(reply.expect_reply_to(2).is_err());
    assert!(request.expect_reply_to(1).is_err());
}

#[test]
fn every_number_is_one_request() {
    let mut found = 0;
    for number in 0..=50 {
        let bytes_of = [0, 8, 16, 20, 24, 32, 40, 56, 12];
        let parsed = bytes_of.iter().find_map(|&len| {
            let mut payload = vec![0; len];
            payload.iter_mut().take(1).for_each(|first| *first = u8::from(number == 5));
            FrontendRequest::parse(&Message::new(number, payload)).ok()
        });
        if let Some(request) = parsed {
            assert_eq!(request.number(), number, "{request:?}");
            found += 1;
        }
    }
    assert_eq!(found, 45);
}

proptest! {
    /// Whatever comes, parsing says yes or no; and what was said yes to is the same on the wire again.
    #[test]
    fn parsing_takes_anything(request in 0u32..50, payload in prop::collection::vec(any::<u8>(), 0..120)) {
        let message = Message::new(request, payload);
        if let Ok(request) = FrontendRequest::parse(&message) {
            prop_assert_eq!(FrontendRequest::parse(&request.message()).unwrap(), request);
        }
        if let Ok(request) = BackendRequest::parse(&message) {
            prop_assert_eq!(BackendRequest::parse(&request.message()).unwrap(), request);
        }
    }
}
