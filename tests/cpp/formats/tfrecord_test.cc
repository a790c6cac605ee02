// Framing of records: written records are found again, whole or in pieces, and damaged records are
// reported or skipped.

#include "formats/tfrecord.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "formats/crc32c.h"

namespace tensor_bridge {
namespace {

using Records = std::vector<std::string>;

std::string fileOf(const Records& records) {
  std::string file;
  for (const std::string& record : records) {
    const int64_t begin = 0;
    const auto size = static_cast<int64_t>(record.size());
    std::string framed(record.size() + 16, '\0');
    frameRecords(reinterpret_cast<const uint8_t*>(record.data()), &begin, &size, 1,
                 reinterpret_cast<uint8_t*>(framed.data()));
    file += framed;
  }
  return file;
}

struct Found {
  Records records;
  RecordScan scan;
};

// In blocks of exactly their size, so that AddressSanitizer sees accesses beyond them.
Found scanned(const std::string& file, RecordScan scan = {}, int64_t most = 100) {
  const std::vector<uint8_t> exact(file.begin(), file.end());
  std::vector<int64_t> begins(static_cast<size_t>(most));
  std::vector<int64_t> sizes(static_cast<size_t>(most));
  const int64_t count = scan.scan(exact.data(), static_cast<int64_t>(exact.size()), most,
                                  begins.data(), sizes.data());
  Found found{{}, scan};
  for (int64_t i = 0; i < count; ++i) {
    const auto at = static_cast<size_t>(i);
    found.records.emplace_back(
        file.substr(static_cast<size_t>(begins[at]), static_cast<size_t>(sizes[at])));
  }
  return found;
}

RecordScan skipping() {
  RecordScan scan;
  scan.skip = true;
  return scan;
}

const Records kThree = {"first", "", std::string(5000, 'x')};

TEST(TfRecord, WhatIsWrittenIsFound) {
  const Found found = scanned(fileOf(kThree));
  EXPECT_EQ(found.records, kThree);
  EXPECT_EQ(found.scan.fault, RecordFault::kNone);
  EXPECT_TRUE(scanned("").records.empty());
}

TEST(TfRecord, ScanningGoesOnWhereItEnded) {
  const std::string file = fileOf(kThree);
  RecordScan scan;
  Records records;
  for (int i = 0; i < 4; ++i) {
    const Found found = scanned(file, scan, 1);
    records.insert(records.end(), found.records.begin(), found.records.end());
    scan = found.scan;
  }
  EXPECT_EQ(records, kThree);
}

TEST(TfRecord, EveryCutIsReportedUnlessItIsBetweenRecords) {
  const std::string file = fileOf({"first", "second"});
  for (size_t size = 0; size < file.size(); ++size) {
    const Found found = scanned(file.substr(0, size));
    const bool between = size == 0 || size == 21;
    EXPECT_EQ(found.scan.fault, between ? RecordFault::kNone : RecordFault::kTruncated) << size;
    EXPECT_EQ(found.records.size(), size < 21 ? 0U : 1U);
    RecordScan more;
    more.final = false;
    EXPECT_EQ(scanned(file.substr(0, size), more).scan.fault, RecordFault::kNone);
  }
}

TEST(TfRecord, EveryFlippedBitIsReportedAndSkipped) {
  const std::string file = fileOf({"first", "second", "third"});
  for (size_t bit = 0; bit < 8 * file.size(); ++bit) {
    std::string damaged = file;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    const size_t place = bit / 8 < 21 ? 0 : bit / 8 < 43 ? 1 : 2;
    const Found found = scanned(damaged);
    EXPECT_EQ(found.records.size(), place);
    const size_t in_record = bit / 8 - (place == 0 ? 0 : place == 1 ? 21 : 43);
    EXPECT_EQ(found.scan.fault,
              in_record < 12 ? RecordFault::kLengthCheck : RecordFault::kDataCheck);
    Records left = {"first", "second", "third"};
    left.erase(left.begin() + static_cast<int64_t>(place));
    const Found rest = scanned(damaged, skipping());
    EXPECT_EQ(rest.records, left);
    EXPECT_EQ(rest.scan.skipped_records, 1);
    EXPECT_EQ(rest.scan.skipped_bytes, place == 1 ? 22 : 21);
  }
}

TEST(TfRecord, AfterMissingAndAdditionalBytesTheNextGoodRecordIsFound) {
  const std::string file = fileOf({"first", "second", "third"});
  EXPECT_EQ(scanned(file.substr(3), skipping()).records, (Records{"second", "third"}));
  std::string cut = file;
  cut.erase(14, 3);
  EXPECT_EQ(scanned(cut, skipping()).records, (Records{"second", "third"}));
  std::string longer = file;
  longer.insert(21, "some bytes");
  EXPECT_EQ(scanned(longer, skipping()).records, (Records{"first", "second", "third"}));
}

TEST(TfRecord, RecordsWithinADamagedRecordAreNotDelivered) {
  std::string file = fileOf({fileOf({"inner"}), "outer"});
  file[14] = static_cast<char>(file[14] ^ 1);
  EXPECT_EQ(scanned(file, skipping()).records, (Records{"outer"}));
}

TEST(TfRecord, PiecesGiveWhatTheWholeGives) {
  std::string file = fileOf({"first", std::string(100, 'y'), "third", "", "fifth"});
  file[40] = static_cast<char>(file[40] ^ 1);
  file.insert(file.size() - 21, "garbage");
  const Found whole = scanned(file, skipping());
  EXPECT_EQ(whole.records, (Records{"first", "third", "", "fifth"}));
  for (size_t piece = 1; piece < 60; ++piece) {
    RecordScan scan = skipping();
    Records records;
    int64_t skipped = 0;
    size_t dropped = 0;
    for (size_t end = piece; dropped < file.size(); end += piece) {
      scan.final = end >= file.size();
      const Found found = scanned(file.substr(dropped, end - dropped), scan);
      records.insert(records.end(), found.records.begin(), found.records.end());
      scan = found.scan;
      dropped += static_cast<size_t>(scan.next);
      scan.next = 0;
      if (scan.final) break;
    }
    skipped = scan.skipped_bytes;
    EXPECT_EQ(records, whole.records) << piece;
    EXPECT_EQ(skipped, whole.scan.skipped_bytes) << piece;
  }
}

// Every offset has a valid length of many bytes, but no valid checksum of the bytes.
TEST(TfRecord, ASearchEndsWhenItsBudgetIsUsed) {
  std::string header(12, '\0');
  const uint64_t size = 1 << 20;
  std::memcpy(header.data(), &size, 8);
  const uint32_t crc = maskedCrc32c(crc32c(reinterpret_cast<const uint8_t*>(header.data()), 8));
  std::memcpy(header.data() + 8, &crc, 4);
  std::string file = "x";
  while (file.size() < (1 << 21)) file += header;
  RecordScan scan = skipping();
  scan.budget = int64_t{1} << 26;
  const Found found = scanned(file, scan);
  EXPECT_TRUE(found.records.empty());
  EXPECT_EQ(found.scan.skipped_bytes, static_cast<int64_t>(file.size()));
}

TEST(TfRecord, LengthsOfAnySizeAreTruncatedRecords) {
  for (const uint64_t size : {uint64_t{1} << 32, uint64_t{1} << 63, ~uint64_t{0}}) {
    std::string header(12, '\0');
    std::memcpy(header.data(), &size, 8);
    const uint32_t crc = maskedCrc32c(crc32c(reinterpret_cast<const uint8_t*>(header.data()), 8));
    std::memcpy(header.data() + 8, &crc, 4);
    EXPECT_EQ(scanned(header).scan.fault, RecordFault::kTruncated);
  }
}

}  // namespace
}  // namespace tensor_bridge
