// Files that the build puts into the program.
#pragma once

namespace evenspan::cli {

// Pages, page/page.html and page/batch.html, with __STYLE__, __PARTS__ and __DATA__ where the two files below and a
// page's data go.
extern const char* const kPage;
extern const char* const kBatchPage;
// page/style.css and page/parts.js, which all pages share.
extern const char* const kPageStyle;
extern const char* const kPageParts;

}  // namespace evenspan::cli
