//! What a back-end asks by itself: its channel, shared memory, and the device's state.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::thread;

use parador_vhost_user::frontend::Remote;
use parador_vhost_user::message::{
    BackendRequest as B, FrontendRequest as R, Iotlb, Message, Mmap, Payload, StateDirection, VringArea,
    VringState,
};
use parador_vhost_user::socket::Connection;
use parador_virtio::testing::PATIENCE;
use parador_virtio::{EventFd, Interrupt, SharedMemory, SharedPiece, VirtioDevice};

use crate::fake::{Fake, Reaction, SHARED, everything, memfd, write_all};

fn channel(fake: &Fake) -> Connection {
    fake.shared.channel.lock().unwrap().as_ref().unwrap().try_clone().unwrap()
}

/// Asks, with a descriptor for what takes one, and says what the answer is.
fn ask(channel: &Connection, request: &B) -> u64 {
    let file = memfd(1 << 20);
    let files: Vec<_> = (0..*request.descriptors().start()).map(|_| file.as_fd()).collect();
    let message = request.message();
    let message =
        if matches!(request, B::SharedObjectLookup(_)) { message } else { message.with_need_reply() };
    channel.send(&message, &files).unwrap();
    channel.set_patience(Some(PATIENCE)).unwrap();
    let (reply, files) = channel.receive().unwrap().unwrap();
    assert_eq!((reply.flags, reply.request, files.len()), (5, message.request, 0));
    u64::parse(&reply.payload).unwrap()
}

/// What is mapped: piece, offset in the file, and whether it can be written.
#[derive(Default)]
struct Maps(Mutex<Vec<(SharedPiece, u64, bool)>>);

impl SharedMemory for Maps {
    fn map(&self, piece: SharedPiece, _: &File, file_offset: u64, writable: bool) -> io::Result<()> {
        self.0.lock().unwrap().push((piece, file_offset, writable));
        Ok(())
    }

    fn unmap(&self, piece: SharedPiece) -> io::Result<()> {
        self.0.lock().unwrap().retain(|(other, ..)| *other != piece);
        Ok(())
    }
}

fn piece(shm_offset: u64, len: u64) -> Mmap {
    Mmap { shmid: 3, fd_offset: 4096, shm_offset, len, flags: 0 }
}

#[test]
fn shared_memory_is_mapped_in_whole_pieces_of_what_there_is() {
    let fake = Fake::new(everything());
    let mut remote = fake.connect().unwrap();
    let regions = &remote.identity().shared_memory;
    assert_eq!((regions[0].id, regions[0].size, regions.len()), (3, SHARED, 1));
    let channel = channel(&fake);
    let no = |request: B| assert_ne!(ask(&channel, &request), 0, "{request:?}");
    let yes = |request: B| assert_eq!(ask(&channel, &request), 0, "{request:?}");
    no(B::ShmemMap(piece(0, 4096))); // there is nothing to map it in yet
    let maps = Arc::new(Maps::default());
    remote.on_shared_memory(Arc::clone(&maps) as Arc<dyn SharedMemory>);
    yes(B::ShmemMap(piece(8192, 8192)));
    yes(B::ShmemMap(Mmap { flags: 1, ..piece(16384, 4096) }));
    for (offset, len) in [(8192, 8192), (0, 12288), (12288, 4096), (12288, 8192), (4096, 1 << 18)] {
        no(B::ShmemMap(piece(offset, len)));
    }
    for (offset, len) in
        [(SHARED, 4096), (0, SHARED + 4096), (!4095, 4096), (4096, !4095), (0, 0), (1, 4096), (0, 1)]
    {
        no(B::ShmemMap(piece(offset, len)));
    }
    no(B::ShmemMap(Mmap { shmid: 2, ..piece(0, 4096) }));
    no(B::ShmemMap(Mmap { flags: 2, ..piece(0, 4096) }));
    no(B::ShmemMap(Mmap { fd_offset: 7, ..piece(0, 4096) }));
    for (offset, len) in [(8192, 4096), (8192, 12288), (0, 4096)] {
        no(B::ShmemUnmap(piece(offset, len)));
    }
    let mapped = |offset, len| SharedPiece { region: 3, offset, len };
    assert_eq!(
        *maps.0.lock().unwrap(),
        [(mapped(8192, 8192), 4096, false), (mapped(16384, 4096), 4096, true)]
    );
    yes(B::ShmemUnmap(piece(8192, 8192)));
    no(B::ShmemUnmap(piece(8192, 8192)));
    remote.reset();
    assert!(maps.0.lock().unwrap().is_empty(), "mappings vanish at a reset");
    yes(B::ShmemMap(piece(16384, 4096)));
    drop(channel);
    fake.hang_up();
    fake.wait(|asked| asked.connection == 1 && matches!(asked.request, R::GetConfig(_)));
    assert!(maps.0.lock().unwrap().is_empty(), "and with the back-end that made them");
}

#[test]
fn what_is_not_done_is_refused_politely() {
    let fake = Fake::new(everything());
    let remote = fake.connect().unwrap();
    let channel = channel(&fake);
    for request in [
        B::Iotlb(Iotlb::default()),
        B::HostNotifier(VringArea { index: 1 << 8, ..VringArea::default() }),
        B::HostNotifier(VringArea::default()),
        B::VringCall(VringState::default()),
        B::VringErr(VringState::default()),
        B::SharedObjectAdd([1; 16]),
        B::SharedObjectRemove([1; 16]),
        B::SharedObjectLookup([1; 16]),
    ] {
        assert_ne!(ask(&channel, &request), 0, "{request:?}");
    }
    channel.send(&Message::new(99, vec![1, 2, 3]).with_need_reply(), &[]).unwrap();
    assert_ne!(channel.receive().unwrap().unwrap().0.payload, 0u64.payload());
    assert!(fake.asked().iter().all(|asked| asked.connection == 0));
    drop(remote);
}

#[test]
fn what_makes_no_sense_ends_the_connection() {
    let wrongs: [fn(&Connection); 3] = [
        |channel| channel.send_bytes(&[0xff; 12], &[]).unwrap(),
        |channel| channel.send(&Message::new(9, vec![0; 39]), &[]).unwrap(),
        |channel| channel.send(&Message::new(2, Vec::new()).ack(0), &[]).unwrap(),
    ];
    for wrong in wrongs {
        let fake = Fake::new(everything());
        let remote = fake.connect().unwrap();
        wrong(&channel(&fake));
        fake.wait(|asked| asked.connection == 1 && matches!(asked.request, R::GetConfig(_)));
        drop(remote);
    }
}

#[test]
fn a_change_of_the_configuration_is_read_and_then_told() {
    let fake = Fake::new(everything());
    let mut remote = fake.connect().unwrap();
    let told = EventFd::new(0).unwrap();
    remote.on_config_change(Interrupt::from_eventfd(told.try_clone().unwrap()));
    let read = |remote: &Remote| {
        let mut data = [0];
        remote.read_config(0, &mut data);
        data[0]
    };
    for generation in 20..25 {
        fake.shared.offer.lock().unwrap().config[0] = generation;
        assert_eq!(ask(&channel(&fake), &B::ConfigChange), 0);
        assert_eq!(told.read().unwrap(), 1);
        assert_eq!(read(&remote), generation);
    }
    // One that changed while nobody was there.
    fake.shared.offer.lock().unwrap().config[0] = 77;
    fake.hang_up();
    assert_eq!(told.read().unwrap(), 1);
    assert_eq!(read(&remote), 77);
}

#[test]
fn state_goes_through_a_pipe_whoever_made_it() {
    let state: Vec<u8> = (0..1_000_000u32).map(|at| at as u8).collect();
    for own in [false, true] {
        let (fake, written) = (Fake::new(everything()), state.clone());
        let (mut kept, loaded) = (Vec::new(), Arc::new(Mutex::new(None)));
        let result = Arc::clone(&loaded);
        fake.script(move |asked| {
            let R::SetDeviceStateFd(transfer) = asked.request else { return Reaction::Answer };
            let (reader, writer) = rustix::pipe::pipe().unwrap();
            let theirs = asked.files[0].try_clone().unwrap();
            let (written, result) = (written.clone(), Arc::clone(&result));
            let (ours, give) = match (transfer.direction, own) {
                (StateDirection::Save, true) => (writer, Some(reader)),
                (StateDirection::Load, true) => (reader, Some(writer)),
                (StateDirection::Save | StateDirection::Load, false) => (theirs, None),
            };
            kept.push(thread::spawn(move || match transfer.direction {
                StateDirection::Save => write_all(&ours, &written),
                StateDirection::Load => {
                    let mut state = Vec::new();
                    File::from(ours).read_to_end(&mut state).unwrap();
                    *result.lock().unwrap() = Some(state);
                }
            }));
            match give {
                Some(file) => Reaction::SendWith(asked.message.ack(0), file),
                None => Reaction::Answer,
            }
        });
        let mut remote = fake.connect().unwrap();
        assert!(remote.save().unwrap() == state, "own {own}");
        remote.load(&state).unwrap();
        let end = std::time::Instant::now() + PATIENCE;
        while loaded.lock().unwrap().is_none() && std::time::Instant::now() < end {
            thread::yield_now();
        }
        assert!(loaded.lock().unwrap().as_ref() == Some(&state), "own {own}");
    }
}

#[test]
fn state_that_cannot_be_had_is_an_error() {
    for (refused, checked) in [(1, 0), (0, 1)] {
        let fake = Fake::with(everything(), move |asked| match asked.request {
            R::SetDeviceStateFd(_) => Reaction::Send(asked.message.ack(refused | 0x100)),
            R::CheckDeviceState => Reaction::Send(asked.message.ack(checked)),
            _ => Reaction::Answer,
        });
        let mut remote = fake.connect().unwrap();
        assert!(remote.save().is_err());
        assert!(remote.load(&[1]).is_err());
        assert!(fake.asked().iter().all(|asked| asked.connection == 0));
    }
}
