// Writes a record of routes (route_file.h). While a run lasts, rows are appended to FILE.partial, so that memory stays
// bounded and a process that dies loses none. At the end they are put in order, by sequence and position, and written
// as FILE, atomically; only then FILE.partial is removed. If a position ran several times, as after a preemption or a
// restart of ranks, the first is kept: bits are the same, and a row that was sampled then need not be again.
//
// FILE.partial is a header and rows of one size, in the order in which they ran:
//   8 bytes "foeroute"; u32 version 1; u32 Stop; u32 length of the JSON that follows: form and origin
//   each row: a RoutedToken (core/route.h) and the words of RouteForm
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "core/route.h"
#include "trace/route_file.h"

namespace foe {

// Why a record does not go on to the end of its run.
enum class RecordStop : std::uint32_t { kNone, kFull, kUnwritable };

// Owns FILE.partial while a run lasts, perhaps with several RouteWriters, one after the other, in this process or
// others.
class RouteRecord {
 public:
  // Empties FILE.partial, which a process that was killed may have left. Throws Error if it cannot be written, if
  // another process is recording there, or if FILE is a directory, a device or a pipe.
  explicit RouteRecord(std::string path);
  ~RouteRecord();
  RouteRecord(const RouteRecord&) = delete;
  RouteRecord& operator=(const RouteRecord&) = delete;

  // Writes FILE and removes FILE.partial. If no writer has begun, there is no FILE. Without this, FILE.partial stays.
  // Throws Error if the disk refuses; then FILE.partial stays, too.
  void finish();

 private:
  std::string path_;
  int fd_;
};

// Appends to the FILE.partial of a RouteRecord. One thread.
class RouteWriter {
 public:
  // `most_bytes` is how long FILE.partial may become; 0: any length. If there are rows already, steps go on after
  // theirs. If somebody has removed FILE.partial, that ends the record, as below: ranks that are started again run
  // nevertheless. Throws Error if rows are of another form or model.
  RouteWriter(const std::string& path, const RouteForm& form, const RouteOrigin& origin, std::int64_t most_bytes);
  ~RouteWriter();
  RouteWriter(const RouteWriter&) = delete;
  RouteWriter& operator=(const RouteWriter&) = delete;

  const RouteForm& form() const { return form_; }
  // Appends the tokens of one step, whose rows of words are rows_TW. The steps of tokens count from 0 for each writer.
  // A step for which there is no room, or that the disk refuses, ends the record: that is noted there, a line on
  // standard error says it, and this and all later steps are left out. What is run does not suffer.
  void add_step(std::span<const RoutedToken> tokens, std::span<const std::int32_t> rows_TW);

 private:
  void stop(RecordStop why, const std::string& reason);
  void end(const std::string& reason);

  std::string path_;  // of FILE.partial
  RouteForm form_;
  std::int64_t most_bytes_, bytes_ = 0, first_step_ = 0;
  bool stopped_ = false;
  int fd_ = -1;
  std::string block_;
};

}  // namespace foe
