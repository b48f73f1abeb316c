#pragma once

#include <saccade/ssl/report/html_report.h>
#include <saccade/ssl/train/planner.h>

#include <cstdint>
#include <span>
#include <string>

/// @file
/// What a plan says, as tables for a terminal and a page.

namespace saccade::ssl {

/// Bytes by tag at the peak, what fragmentation adds, and `elsewhere`: what the process or the device takes beside.
ReportTable memory_table(const Rehearsal& rehearsal, int64_t elsewhere);
/// Ways to run the step side by side; the first is shown as the best.
ReportTable ways_table(std::span<const StepPlan> ways);
/// Layer by layer: what is kept of it, how often its forward runs, and what it takes.
ReportTable layer_table(const Planner& planner, const StepPlan& plan);

/// Memory over one step by tag, with the phases above it.
/// @param limit  of the arena, in bytes; 0: none
Chart memory_chart(const Rehearsal& rehearsal, int64_t limit);

/// A table as lines of text, columns aligned, its best row marked.
std::string table_text(const ReportTable& table);

/// "1.24 s", "87.3 ms".
std::string seconds_text(double seconds);

}  // namespace saccade::ssl
