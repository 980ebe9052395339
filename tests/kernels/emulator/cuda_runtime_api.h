// The few names of the CUDA runtime that launchers use, for the emulator: no CUDA toolkit is needed.
#pragma once

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorLaunchFailure = 719 };
using cudaStream_t = void*;
