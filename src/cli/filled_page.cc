#include "cli/filled_page.h"

#include <string_view>

#include "cli/embedded_files.h"

namespace evenspan::cli {
namespace {

void replace(std::string* page, std::string_view marker, const std::string& text) {
  page->replace(page->find(marker), marker.size(), text);
}

}  // namespace

std::string filled_page(const char* page, const std::string& json) {
  std::string data;
  for (const char c : json) {
    if (c == '<') {
      data += "\\u003c";  // no text ends the script early
    } else {
      data += c;
    }
  }
  std::string out = page;
  replace(&out, "__STYLE__", kPageStyle);
  replace(&out, "__PARTS__", kPageParts);
  replace(&out, "__DATA__", data);
  return out;
}

}  // namespace evenspan::cli
