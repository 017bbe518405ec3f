// Device memory and streams of the host build, which the checks watch and disturb.
#pragma once

struct HostDevice {
  int allocations;    // since the program began
  int live;           // buffers
  int allowed;        // allocations that may still succeed; below zero: any number
  bool capturing;     // every stream is: launches are recorded, nothing runs
  bool recording;     // the kernels are those of host_kernels.cc, which count:
  int packs, convs, gates;
  int multiprocessors;
};
extern "C" HostDevice* dance_host_device();
