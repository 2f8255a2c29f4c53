# The command line: bin/evenspan starts without torch; src/cli/<name>/ becomes bin/evenspan-<name> beside it, which
# evenspan starts for the commands that need torch.

# evenspan_embed_pages(<result>): a source that holds the files of src/cli/page/, so that the program needs no folder.
function(evenspan_embed_pages result)
  set(entries "")
  foreach(pair kPage:page.html kBatchPage:batch.html kPageStyle:style.css kPageParts:parts.js)
    string(REPLACE ":" ";" pair ${pair})
    list(POP_FRONT pair constant name)
    set(file ${PROJECT_SOURCE_DIR}/src/cli/page/${name})
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
    file(READ ${file} text)
    string(APPEND entries "const char* const ${constant} = R\"page(${text})page\";\n\n")
  endforeach()
  set(source ${PROJECT_BINARY_DIR}/embedded_files.cc)
  file(CONFIGURE OUTPUT ${source} @ONLY CONTENT [[
// Made from the files of src/cli/page/.
#include "cli/embedded_files.h"

namespace evenspan::cli {

@entries@}  // namespace evenspan::cli
]])
  set(${result} ${source} PARENT_SCOPE)
endfunction()

file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/cli/*.cc)
if(sources)
  include(EvenspanHighs)
  evenspan_find_edges("the program evenspan" with_cli nlohmann_json cli11 zlib)
  if(with_cli)
    evenspan_embed_pages(embedded)
    add_executable(evenspan ${sources} ${embedded})
    target_link_libraries(evenspan PRIVATE evenspan_machine evenspan_highs edge_nlohmann_json edge_cli11 edge_zlib)
    evenspan_finish(evenspan)
    set_property(SOURCE ${PROJECT_SOURCE_DIR}/src/cli/solver_source.cc APPEND PROPERTY
                 COMPILE_DEFINITIONS "EVENSPAN_HIGHS=\"${EVENSPAN_HIGHS}\"")
    list(APPEND EVENSPAN_PROGRAMS evenspan)
  endif()
endif()

evenspan_sources(sources ${PROJECT_SOURCE_DIR}/src/cli/*/*.cc)
list(TRANSFORM sources REPLACE "^.*/src/cli/([^/]+)/.*$" "\\1" OUTPUT_VARIABLE commands)
list(REMOVE_DUPLICATES commands)
foreach(command IN LISTS commands)
  string(TOUPPER ${command} name)
  if(EVENSPAN_WITH_${name})
    set(own ${sources})
    list(FILTER own INCLUDE REGEX "/src/cli/${command}/")
    add_executable(evenspan-${command} ${own} ${PROJECT_SOURCE_DIR}/src/cli/command.cc)
    target_link_libraries(evenspan-${command} PRIVATE evenspan_${command})
    target_compile_definitions(evenspan-${command} PRIVATE EVENSPAN_BUILT_WITH="${EVENSPAN_INTERPRETER}")
    evenspan_use_pch(evenspan-${command} torch)
    evenspan_finish(evenspan-${command})
    list(APPEND EVENSPAN_PROGRAMS evenspan-${command})
  endif()
endforeach()
