/* copy_emu.cc - copy.cu over the emulator. */
#include "tests/unit/cuda/copy.cu"
