// Pages that --html writes, each in one file that needs no network.
#pragma once

#include <string>

namespace evenspan::cli {

// A page of embedded_files.h with the style and the functions that all pages share, and its data, a JSON text.
std::string filled_page(const char* page, const std::string& json);

}  // namespace evenspan::cli
