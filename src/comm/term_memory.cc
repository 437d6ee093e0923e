#include "comm/term_memory.h"

#include <algorithm>
#include <fcntl.h>
#include <functional>
#include <unistd.h>
#include <utility>

#include <fmt/core.h>
#include <sys/mman.h>

namespace foe {
namespace {

// Maps a file. Returns null if the system refuses.
std::shared_ptr<float> map(int file, std::size_t floats) {
  const std::size_t bytes = floats * sizeof(float);
  void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (at == MAP_FAILED) return nullptr;
  return {static_cast<float*>(at), [bytes](float* data) { munmap(data, bytes); }};
}

// Sends `mine` to all ranks and returns what each rank has sent, by rank. This exchange is not counted.
template <typename T>
std::vector<T> exchange(Communicator& comm, const T& mine) {
  const auto ranks = static_cast<std::size_t>(comm.size());
  const std::vector<T> send(ranks, mine);
  std::vector<T> all(ranks);
  std::vector<std::size_t> received(ranks);
  comm.do_all_to_all(std::as_bytes(std::span(send)), std::vector<std::size_t>(ranks, sizeof(T)),
                     std::as_writable_bytes(std::span(all)), received);
  return all;
}

class File {
 public:
  explicit File(int file) : file_(file) {}
  ~File() {
    if (file_ >= 0) close(file_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int get() const { return file_; }

 private:
  int file_;
};

}  // namespace

// How the other ranks find a rank's part. It is a file without a name, which the size limit of /dev/shm does not apply
// to.
struct TermMemory::Offer {
  pid_t process;
  int file;
  const std::shared_ptr<float>* data;  // for threads of the same process; null: the system refused the memory
  std::size_t floats;
};

std::shared_ptr<TermMemory> TermMemory::make(Communicator& comm, std::size_t floats) {
  const std::shared_ptr<TermMemory> memory(new TermMemory(comm.rank()));
  memory->parts_.resize(comm.size());
  Part& own = memory->parts_[comm.rank()];
  const File file(memfd_create("foe-terms", MFD_CLOEXEC));
  if (floats > 0 && file.get() >= 0 && ftruncate(file.get(), static_cast<off_t>(floats * sizeof(float))) == 0)
    own = {map(file.get(), floats), floats};
  // The second exchange keeps the file open, and this rank here, until all ranks have mapped it.
  const bool mapped =
      memory->map_others(exchange(comm, Offer{getpid(), file.get(), own.data ? &own.data : nullptr, floats}));
  const std::vector<char> all = exchange(comm, static_cast<char>(mapped));
  return std::all_of(all.begin(), all.end(), [](char one) { return one != 0; }) ? memory : nullptr;
}

bool TermMemory::map_others(const std::vector<Offer>& offers) {
  for (std::size_t rank = 0; rank < offers.size(); ++rank) {
    const Offer& offer = offers[rank];
    if (offer.floats == 0) continue;
    if (!offer.data) return false;
    if (static_cast<int>(rank) == rank_) continue;
    // Threads of one process use one mapping, so that tools which look for data races see what they do to it.
    if (offer.process == getpid()) {
      parts_[rank] = {*offer.data, offer.floats};
      continue;
    }
    const File file(open(fmt::format("/proc/{}/fd/{}", offer.process, offer.file).c_str(), O_RDWR | O_CLOEXEC));
    std::shared_ptr<float> data = file.get() < 0 ? nullptr : map(file.get(), offer.floats);
    if (!data) return false;
    parts_[rank] = {std::move(data), offer.floats};
  }
  return true;
}

std::optional<std::size_t> TermMemory::place(const float* x) const {
  const Part& own = parts_[rank_];
  const std::less<> before;  // the operator < is not defined for pointers into different arrays
  if (own.floats == 0 || before(x, own.data.get()) || !before(x, own.data.get() + own.floats)) return {};
  return static_cast<std::size_t>(x - own.data.get());
}

bool TermMemory::has(int rank, std::size_t place, std::size_t floats) const {
  return place <= parts_[rank].floats && floats <= parts_[rank].floats - place;
}

}  // namespace foe
