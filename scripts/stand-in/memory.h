// Device memory: bytes of the host, counted per device and limited as a card's are. Pinned host memory is remembered, not pinned.
#pragma once

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <sys/mman.h>

#include <cstring>
#include <map>
#include <new>

#include "counts.h"

namespace stand_in {

// The device that this thread uses.
inline thread_local c10::DeviceIndex current = 0;

struct Allocation {
  size_t size;
  c10::DeviceIndex device;
  void* data;
  bool mapped;
};

inline void release(void* context) {
  auto* block = static_cast<Allocation*>(context);
  counts().bytes[block->device] -= static_cast<long>(block->size);
  if (block->mapped)
    munmap(block->data, block->size);
  else
    std::free(block->data);
  delete block;
}

class DeviceAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t size) override {
    const c10::DeviceIndex device = current;
    const c10::Device place(c10::DeviceType::CUDA, device);
    if (size == 0) return {nullptr, nullptr, &release_nothing, place};
    const size_t rounded = (size + 511) / 512 * 512;  // as CUDA's allocator does
    account(device, rounded);
    // Without values, memory is address space that nobody touches.
    const bool mapped = shapes_only() && rounded > static_cast<size_t>(SMALL);
    void* data = nullptr;
    if (mapped) {
      data = mmap(nullptr, rounded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (data == MAP_FAILED) throw std::bad_alloc();
    } else if (posix_memalign(&data, 64, rounded) != 0) {
      throw std::bad_alloc();
    }
    if (shapes_only() && !mapped) std::memset(data, 0, rounded);
    return {data, new Allocation{rounded, device, data, mapped}, &release, place};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, std::size_t size) const override { std::memcpy(to, from, size); }

 private:
  static void release_nothing(void*) {}

  static void account(c10::DeviceIndex device, size_t size) {
    const long now = counts().bytes[device] += static_cast<long>(size);
    if (capacity() > 0 && now > capacity()) {
      counts().bytes[device] -= static_cast<long>(size);
      TORCH_CHECK_WITH(OutOfMemoryError, false, "CUDA out of memory. Tried to allocate ", size, " bytes. GPU ", int(device),
                       " has a total capacity of ", capacity(), " bytes");
    }
    long before = counts().peak[device];
    while (now > before && !counts().peak[device].compare_exchange_weak(before, now)) {
    }
  }
};

inline DeviceAllocator& device_allocator() {
  static auto* allocator = new DeviceAllocator;
  return *allocator;
}

// Host memory that a real device could read by itself.
class PinnedAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t size) override {
    auto plain = c10::GetCPUAllocator()->allocate(size);
    void* data = plain.get();
    if (data) {
      std::lock_guard<std::mutex> guard(lock());
      ranges()[data] = size;
    }
    auto* kept = new c10::DataPtr(std::move(plain));
    return {data, kept, &forget, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, std::size_t size) const override { std::memcpy(to, from, size); }

  static bool holds(const void* data) {
    std::lock_guard<std::mutex> guard(lock());
    auto after = ranges().upper_bound(const_cast<void*>(data));
    if (after == ranges().begin()) return false;
    const auto& [start, size] = *--after;
    return data < static_cast<const char*>(start) + size;
  }

 private:
  static std::mutex& lock() {
    static auto* lock = new std::mutex;
    return *lock;
  }
  static std::map<void*, size_t>& ranges() {
    static auto* ranges = new std::map<void*, size_t>;
    return *ranges;
  }
  static void forget(void* context) {
    auto* kept = static_cast<c10::DataPtr*>(context);
    {
      std::lock_guard<std::mutex> guard(lock());
      ranges().erase(kept->get());
    }
    delete kept;
  }
};

inline PinnedAllocator& pinned_allocator() {
  static auto* allocator = new PinnedAllocator;
  return *allocator;
}

}  // namespace stand_in
