/* fake_nccl.h - the fault that the fake library has, and what it counts: symbols of its own, found by dlsym(). */
#ifndef WEIR_TESTS_CUDA_FAKE_NCCL_H
#define WEIR_TESTS_CUDA_FAKE_NCCL_H

enum { FAKE_OK, FAKE_OPEN_HANGS, FAKE_SUM_HANGS, FAKE_SUM_FAILS };
extern _Atomic int fake_nccl_mode;
extern _Atomic int fake_nccl_open; /* communicators */
extern _Atomic int fake_nccl_sums; /* calls of ncclAllReduce */

#endif
