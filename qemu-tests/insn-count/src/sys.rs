//! QEMU's plugin interface (`qemu-plugin.h`), as far as a counter needs it, and all of the crate's `unsafe`.
//!
//! The functions are looked up at run time instead of being linked, because the interface changed: QEMU 7 and 8
//! (version 1) add to a plain integer, QEMU 9 and later (version 2 on) to a scoreboard, and version 3 copies an
//! instruction's bytes instead of pointing at them. One file loads in all of them: a constructor sets
//! `qemu_plugin_version` to what the running QEMU takes before QEMU reads it.
#![allow(
    unsafe_code,
    reason = "QEMU's plugin interface is a C ABI in both directions"
)]
#![allow(
    clippy::missing_transmute_annotations,
    reason = "a looked-up function's type is written once, at the field that keeps it"
)]

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use crate::counter::{self, Settings};
use crate::marker;

/// The interface version this file asks for; QEMU reads it as an `int`.
#[unsafe(export_name = "qemu_plugin_version")]
static PLUGIN_VERSION: AtomicI32 = AtomicI32::new(1);

/// Chooses the interface version when the file is loaded.
#[used]
#[unsafe(link_section = ".init_array")]
static CHOOSE_VERSION: extern "C" fn() = choose_version;

extern "C" fn choose_version() {
    if symbol(c"qemu_plugin_scoreboard_new").is_some() {
        PLUGIN_VERSION.store(2, Ordering::Relaxed);
    }
}

/// `enum qemu_plugin_cb_flags`: the callback touches no register.
const NO_REGISTERS: c_int = 0;
/// `enum qemu_plugin_op`: add a 64-bit immediate.
const INLINE_ADD_U64: c_int = 0;

/// The head of `qemu_info_t`; what follows is not read.
#[repr(C)]
struct Info {
    target_name: *const c_char,
    minimum_version: c_int,
    current_version: c_int,
}

/// `qemu_plugin_u64`: one 64-bit field of a scoreboard, passed by value.
#[repr(C)]
#[derive(Clone, Copy)]
struct ScoreboardField {
    scoreboard: *mut c_void,
    offset: usize,
}

type TranslateCallback = extern "C" fn(u64, *mut c_void);
type ExitCallback = extern "C" fn(u64, *mut c_void);
type ExecuteCallback = extern "C" fn(c_uint, *mut c_void);

/// The functions every version has.
struct Api {
    tb_n_insns: unsafe extern "C" fn(*const c_void) -> usize,
    tb_get_insn: unsafe extern "C" fn(*const c_void, usize) -> *mut c_void,
    insn_size: unsafe extern "C" fn(*const c_void) -> usize,
    insn_data: InsnData,
    on_insn_execution: unsafe extern "C" fn(*mut c_void, ExecuteCallback, c_int, *mut c_void),
    add: Add,
}

/// How an instruction's bytes are read.
enum InsnData {
    /// Before version 3: a pointer that is valid during the translation callback.
    Pointer(unsafe extern "C" fn(*const c_void) -> *const c_void),
    /// From version 3 on: a copy.
    Copy(unsafe extern "C" fn(*const c_void, *mut c_void, usize) -> usize),
}

/// How a translation block adds to the count without a call.
enum Add {
    /// Version 1: to [`COUNT`].
    Integer(unsafe extern "C" fn(*mut c_void, c_int, *mut c_void, u64)),
    /// From version 2 on: to a scoreboard's field.
    Scoreboard {
        add: unsafe extern "C" fn(*mut c_void, c_int, ScoreboardField, u64),
        sum: unsafe extern "C" fn(ScoreboardField) -> u64,
        field: ScoreboardField,
    },
}

// SAFETY: the pointers are QEMU's functions and its scoreboard, which live as long as the process and may be used
// from every vCPU thread.
unsafe impl Send for Api {}
// SAFETY: as above; nothing in an `Api` changes after it is made.
unsafe impl Sync for Api {}

static API: OnceLock<Api> = OnceLock::new();

/// The count of a version 1 QEMU. Generated code adds to it without atomicity: one vCPU only.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// A function of the running QEMU by name.
fn symbol(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: dlsym only reads the name, which is NUL-terminated.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

/// As [`symbol`], with the reason for which the plugin cannot go on.
fn require(name: &CStr) -> Result<*mut c_void, String> {
    symbol(name).ok_or_else(|| format!("this QEMU has no {}", name.to_string_lossy()))
}

/// A pointer from [`require`] as the function type that the field it is stored in declares.
macro_rules! function {
    ($name:literal) => {{
        let pointer = require($name)?;
        // SAFETY: the symbol is a function of QEMU's, and the type it is stored as is its declaration in
        // qemu-plugin.h for the interface version that was checked before.
        unsafe { std::mem::transmute::<*mut c_void, _>(pointer) }
    }};
}

impl Api {
    fn load(current_version: c_int) -> Result<Self, String> {
        Ok(Self {
            tb_n_insns: function!(c"qemu_plugin_tb_n_insns"),
            tb_get_insn: function!(c"qemu_plugin_tb_get_insn"),
            insn_size: function!(c"qemu_plugin_insn_size"),
            insn_data: if current_version >= 3 {
                InsnData::Copy(function!(c"qemu_plugin_insn_data"))
            } else {
                InsnData::Pointer(function!(c"qemu_plugin_insn_data"))
            },
            on_insn_execution: function!(c"qemu_plugin_register_vcpu_insn_exec_cb"),
            add: Add::load()?,
        })
    }

    /// The marker that this instruction is, if it is one.
    ///
    /// # Safety
    /// `instruction` must be a live instruction of the translation callback that is running.
    unsafe fn marker(&self, instruction: *const c_void) -> Option<u8> {
        let mut bytes = [0; marker::LEN];
        // SAFETY: the caller's promise.
        if unsafe { (self.insn_size)(instruction) } != bytes.len() {
            return None;
        }
        match self.insn_data {
            InsnData::Pointer(data) => {
                // SAFETY: the caller's promise; QEMU's pointer covers the instruction's size, just checked.
                unsafe {
                    let data = data(instruction).cast::<u8>();
                    data.copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len());
                }
            }
            InsnData::Copy(copy) => {
                // SAFETY: the caller's promise; the buffer has the length that is given.
                unsafe { copy(instruction, bytes.as_mut_ptr().cast(), bytes.len()) };
            }
        }
        marker::parse(&bytes)
    }
}

impl Add {
    fn load() -> Result<Self, String> {
        if symbol(c"qemu_plugin_scoreboard_new").is_none() {
            return Ok(Self::Integer(function!(
                c"qemu_plugin_register_vcpu_tb_exec_inline"
            )));
        }
        let new: unsafe extern "C" fn(usize) -> *mut c_void =
            function!(c"qemu_plugin_scoreboard_new");
        // SAFETY: allocates a scoreboard of one 64-bit field for each vCPU; it is never freed.
        let scoreboard = unsafe { new(size_of::<u64>()) };
        Ok(Self::Scoreboard {
            add: function!(c"qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu"),
            sum: function!(c"qemu_plugin_u64_sum"),
            field: ScoreboardField {
                scoreboard,
                offset: 0,
            },
        })
    }

    /// Adds `instructions` each time the block is executed.
    ///
    /// # Safety
    /// `block` must be the live block of the translation callback that is running.
    unsafe fn register(&self, block: *mut c_void, instructions: u64) {
        match self {
            Self::Integer(add) => {
                let count = COUNT.as_ptr().cast();
                // SAFETY: the caller's promise; the integer is static.
                unsafe { add(block, INLINE_ADD_U64, count, instructions) };
            }
            Self::Scoreboard { add, field, .. } => {
                // SAFETY: the caller's promise; the scoreboard is never freed.
                unsafe { add(block, INLINE_ADD_U64, *field, instructions) };
            }
        }
    }

    fn total(&self) -> u64 {
        match self {
            Self::Integer(_) => COUNT.load(Ordering::Relaxed),
            // SAFETY: reads the scoreboard, which is never freed.
            Self::Scoreboard { sum, field, .. } => unsafe { sum(*field) },
        }
    }
}

/// Called for each block of guest code that is translated.
extern "C" fn on_translation(_id: u64, block: *mut c_void) {
    let Some(api) = API.get() else { return };
    // SAFETY: QEMU passes a block that is live during this callback.
    let instructions = unsafe { (api.tb_n_insns)(block) };
    // SAFETY: as above.
    unsafe { api.add.register(block, instructions as u64) };
    for index in 0..instructions {
        // SAFETY: the block is live and the index is below its number of instructions.
        let instruction = unsafe { (api.tb_get_insn)(block, index) };
        // SAFETY: the instruction has just been taken from the live block.
        let Some(number) = (unsafe { api.marker(instruction) }) else {
            continue;
        };
        let data = counter::pack(number, instructions - index - 1) as *mut c_void;
        // SAFETY: the instruction is live; the data is a number, never followed as a pointer.
        unsafe { (api.on_insn_execution)(instruction, on_marker, NO_REGISTERS, data) };
    }
}

/// Called when a marker is executed. The block has already added all of its instructions.
extern "C" fn on_marker(_vcpu: c_uint, data: *mut c_void) {
    let Some(api) = API.get() else { return };
    counter::write_marker(data as usize, api.add.total());
}

/// Called when QEMU ends.
extern "C" fn on_exit(_id: u64, _data: *mut c_void) {
    let Some(api) = API.get() else { return };
    counter::write_total(api.add.total());
}

/// Called by QEMU once the file is loaded; anything but 0 makes QEMU refuse to start.
///
/// # Safety
/// QEMU calls it with its own information block and `argc` C strings in `argv`.
#[unsafe(no_mangle)]
unsafe extern "C" fn qemu_plugin_install(
    id: u64,
    info: *const Info,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    let arguments = (0..usize::try_from(argc).unwrap_or(0)).map(|index| {
        // SAFETY: QEMU promises `argc` NUL-terminated strings, alive during this call.
        let argument = unsafe { CStr::from_ptr(*argv.add(index)) };
        argument.to_string_lossy().into_owned()
    });
    // SAFETY: QEMU passes a valid block; the three fields are the same in every version.
    let version = unsafe { (*info).current_version };
    match Settings::parse(arguments).and_then(|settings| start(id, version, settings)) {
        Ok(()) => 0,
        Err(reason) => {
            eprintln!("insn-count: {reason}");
            1
        }
    }
}

fn start(id: u64, version: c_int, settings: Settings) -> Result<(), String> {
    let on_tb: unsafe extern "C" fn(u64, TranslateCallback) =
        function!(c"qemu_plugin_register_vcpu_tb_trans_cb");
    let on_end: unsafe extern "C" fn(u64, ExitCallback, *mut c_void) =
        function!(c"qemu_plugin_register_atexit_cb");
    let api = Api::load(version)?;
    counter::open(settings)?;
    if API.set(api).is_err() {
        return Err("loaded twice".to_owned());
    }
    // SAFETY: the callbacks have the declared types and stay valid: the file is never unloaded.
    unsafe {
        on_tb(id, on_translation);
        on_end(id, on_exit, std::ptr::null_mut());
    }
    Ok(())
}
