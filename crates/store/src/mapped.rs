//! Bytes of a file where the system keeps them, without a copy.
//!
//! A mapped page that a disk cannot give, or that somebody cuts off meanwhile, is a `SIGBUS`, which ends a program. What
//! is read here is to find damaged disks and files that change, so such a page becomes an error: while a window is open
//! the signal's handler lays empty pages over the rest of it and takes note, and what was made of the bytes is thrown
//! away.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, compiler_fence};

use memmap2::{Advice, Mmap, MmapOptions};

/// How many windows can be open at once, over all threads; one more is refused.
const WINDOWS: usize = 64;

/// A window that is open.
struct Open {
    taken: AtomicBool,
    /// Odd while the addresses change: the handler looks before and after it reads them, so that it never takes one
    /// window's beginning with another's end.
    turn: AtomicUsize,
    torn: AtomicBool,
    /// Addresses; nothing is in it while both are 0.
    start: AtomicUsize,
    end: AtomicUsize,
}

static OPEN: [Open; WINDOWS] = [const {
    Open {
        taken: AtomicBool::new(false),
        turn: AtomicUsize::new(0),
        torn: AtomicBool::new(false),
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
    }
}; WINDOWS];

impl Open {
    /// Only whoever has taken it does this.
    fn set(&self, start: usize, end: usize) {
        self.turn.fetch_add(1, Ordering::SeqCst);
        self.start.store(start, Ordering::SeqCst);
        self.end.store(end, Ordering::SeqCst);
        self.turn.fetch_add(1, Ordering::SeqCst);
    }

    /// The end of the window, if `address` is in it. One that is being opened or closed has no address in it that
    /// anybody reads.
    fn end_behind(&self, address: usize) -> Option<usize> {
        let turn = self.turn.load(Ordering::SeqCst);
        let (start, end) = (self.start.load(Ordering::SeqCst), self.end.load(Ordering::SeqCst));
        let is_settled = turn.is_multiple_of(2) && turn == self.turn.load(Ordering::SeqCst);
        (is_settled && (start..end).contains(&address)).then_some(end)
    }
}

/// Hands `len` bytes of a file from `at` on to `read`. What is cut off within the last page is no error here, for the
/// system has zeros there: whoever is to know looks at the file's size and times afterwards.
///
/// # Errors
/// Where they cannot be mapped, or not all of them could be read; then `read` may have seen zeros in place of what is
/// in the file, and what it made of them is gone. Reading the file says what is wrong, if anything is.
pub fn mapped<R>(file: &File, at: u64, len: usize, read: impl FnOnce(&[u8]) -> R) -> io::Result<R> {
    static GUARDED: OnceLock<bool> = OnceLock::new();
    if !GUARDED.get_or_init(guard) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let mut options = MmapOptions::new();
    #[expect(unsafe_code, reason = "without a map every byte is copied before it is read")]
    // SAFETY: the map is only read, and a page of it that is not there is replaced by the handler. Should somebody
    // write into the file meanwhile, its bytes change under `read`: they are data for hashes, whose every value is
    // good, and whoever hashes looks at the file's times afterwards.
    let map = unsafe { options.offset(at).len(len).map(file)? };
    // The kernel may read ahead further than usual; where it does not take the advice, nothing is lost.
    let _ = map.advise(Advice::Sequential);
    let window = Window::open(map)?;
    // The handler is no thread: the compiler must not read before the window is open, nor after what tells that it is torn.
    compiler_fence(Ordering::SeqCst);
    let made = read(&window.map);
    compiler_fence(Ordering::SeqCst);
    if window.slot.torn.load(Ordering::Acquire) { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(made) }
}

/// A map that the handler knows, for as long as this lives.
struct Window {
    map: Mmap,
    slot: &'static Open,
}

impl Window {
    fn open(map: Mmap) -> io::Result<Self> {
        let free = |slot: &&Open| !slot.taken.swap(true, Ordering::AcqRel);
        let slot = OPEN.iter().find(free).ok_or(io::ErrorKind::WouldBlock)?;
        // A map begins where a page does, and what is asked for may begin within it.
        let start = page_of(map.as_ptr().addr());
        slot.torn.store(false, Ordering::Release);
        slot.set(start, map.as_ptr().addr() + map.len());
        Ok(Window { map, slot })
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.slot.set(0, 0);
        self.slot.taken.store(false, Ordering::Release);
    }
}

/// What handled the signal before.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// The size of a page, for the handler.
static PAGE: AtomicUsize = AtomicUsize::new(4096);

/// Where the page begins that has this address.
fn page_of(address: usize) -> usize {
    address & !(PAGE.load(Ordering::Acquire) - 1)
}

#[expect(unsafe_code, reason = "a signal's handler is set by calls of C")]
fn guard() -> bool {
    PAGE.store(rustix::param::page_size(), Ordering::Release);
    let mut before = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: both structures outlive the calls. The handler does what a handler may: it reads atomics and makes one
    // system call. The handler before it is known before this one can be called.
    unsafe {
        if libc::sigaction(libc::SIGBUS, std::ptr::null(), before.as_mut_ptr()) != 0 {
            return false;
        }
        let _ = BEFORE.set(before.assume_init());
        let mut ours = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        ours.sa_sigaction = on_bus_error as *const () as libc::sighandler_t;
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&raw mut ours.sa_mask);
        libc::sigaction(libc::SIGBUS, &raw const ours, null_mut()) == 0
    }
}

/// Lays empty pages over the rest of the window that the address is in. An address in none is not ours.
#[expect(unsafe_code, reason = "it is called by the system, and changes what lies at an address")]
extern "C" fn on_bus_error(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the system gives what SA_SIGINFO promises. The pages that are replaced are those of a map that lives
    // while its window is open: the thread that reads it stands here.
    unsafe {
        let address = (*info).si_addr().addr();
        // Sent by a program, and not by a fault: then there is no address.
        let is_sent = (*info).si_code <= 0;
        for slot in OPEN.iter().filter(|_| !is_sent) {
            let Some(end) = slot.end_behind(address) else { continue };
            slot.torn.store(true, Ordering::Release);
            let page = page_of(address);
            let flags = libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_FIXED;
            let at = std::ptr::with_exposed_provenance_mut(page);
            if libc::mmap(at, end - page, libc::PROT_READ, flags, -1, 0) != libc::MAP_FAILED {
                return;
            }
        }
        pass_on(signal, info, context);
    }
}

/// Does what would have been done without this handler.
#[expect(unsafe_code, reason = "what was there before is a pointer to a function")]
unsafe fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    type Plain = extern "C" fn(libc::c_int);
    type WithInfo = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
    let before = BEFORE.get().filter(|before| ![libc::SIG_DFL, libc::SIG_IGN].contains(&before.sa_sigaction));
    // SAFETY: a handler that was set is a function of the kind that its flags say.
    unsafe {
        match before {
            Some(before) if before.sa_flags & libc::SA_SIGINFO != 0 => {
                std::mem::transmute::<libc::sighandler_t, WithInfo>(before.sa_sigaction)(
                    signal, info, context,
                );
            }
            Some(before) => {
                std::mem::transmute::<libc::sighandler_t, Plain>(before.sa_sigaction)(signal);
            }
            // What failed is done again after this, and ends the program as it should.
            None => drop(libc::signal(signal, libc::SIG_DFL)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn bytes_are_those_of_the_file_from_where_it_was_asked() {
        let bytes: Vec<u8> = (0..300_000u32).map(|at| (at % 251) as u8).collect();
        let file = file_of(&bytes);
        assert_eq!(mapped(&file, 0, bytes.len(), <[u8]>::to_vec).unwrap(), bytes);
        assert_eq!(mapped(&file, 65536, 70_001, <[u8]>::to_vec).unwrap(), bytes[65536..135_537]);
    }

    #[test]
    fn a_file_that_is_cut_while_it_is_read_is_an_error() {
        let len = 4 << 20;
        for _ in 0..3 {
            let file = file_of(&vec![7; len]);
            let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
            let cut = mapped(&file, 0, len, |bytes| {
                let half = sum(&bytes[..len / 2]);
                file.set_len(len as u64 / 2 + 10).unwrap();
                // In another thread as well: whoever reads is helped.
                std::thread::scope(|scope| scope.spawn(|| sum(&bytes[len / 2..])).join().unwrap()) + half
            });
            assert!(cut.is_err());
            // What is left can be read, and the window that was torn is not any more.
            assert_eq!(mapped(&file, 0, len / 2, sum).unwrap(), 7 * (len as u64 / 2));
        }
    }

    #[test]
    fn what_is_behind_the_end_is_an_error() {
        let file = file_of(&[1; 10]);
        assert!(mapped(&file, 0, 1 << 20, |bytes| bytes.iter().filter(|byte| **byte == 1).count()).is_err());
        assert!(
            mapped(&file, 3, 4, <[u8]>::to_vec).is_ok(),
            "any offset: the map begins where its page does"
        );
    }

    #[test]
    fn what_is_not_ours_ends_the_program_as_ever() {
        use std::os::unix::process::ExitStatusExt as _;
        const IS_CHILD: &str = "MLXMAN_TEST_BUS_ERROR";
        const TEST: &str = "mapped::tests::what_is_not_ours_ends_the_program_as_ever";
        if std::env::var_os(IS_CHILD).is_some() {
            return bus_error_of_somebody_else();
        }
        let exe = std::env::current_exe().unwrap();
        let child =
            std::process::Command::new(exe).args(["--exact", TEST]).env(IS_CHILD, "1").output().unwrap();
        assert_eq!(child.status.signal(), Some(libc::SIGBUS), "{child:?}");
    }

    fn bus_error_of_somebody_else() {
        let file = file_of(&[1; 10_000]);
        mapped(&file, 0, 10_000, <[u8]>::len).unwrap();
        #[expect(unsafe_code, reason = "this is what the handler is not for")]
        // SAFETY: it ends the process, and is meant to.
        let map = unsafe { Mmap::map(&file).unwrap() };
        file.set_len(10).unwrap();
        std::hint::black_box(map[9_000]);
    }

    #[test]
    fn as_many_as_there_is_room_for() {
        fn nested(file: &File, depth: usize) -> usize {
            mapped(file, 0, 10, |_| nested(file, depth + 1)).unwrap_or(depth)
        }
        let file = file_of(&[1; 10]);
        let most = nested(&file, 0);
        assert!((2..=WINDOWS).contains(&most), "{most}");
        assert!(mapped(&file, 0, 10, <[u8]>::len).is_ok());
    }
}
