# evenspan_machine: profiles, topologies and models as JSON files, with the files of profiles/ in it, so that what links
# it needs no folder.
file(GLOB files CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/profiles/*.json)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${files})
set(entries "")
foreach(file IN LISTS files)
  cmake_path(GET file STEM name)
  file(READ ${file} text)
  string(APPEND entries "    {\"${name}\", R\"profile(${text})profile\"},\n")
endforeach()
set(source ${PROJECT_BINARY_DIR}/shipped_profiles.cc)
file(CONFIGURE OUTPUT ${source} @ONLY CONTENT [[
// Made from profiles/*.json.
#include "evenspan/machine/machine_files.h"

namespace evenspan::machine {

const std::map<std::string, std::string>& shipped_profiles() {
  static const std::map<std::string, std::string> profiles = {
@entries@  };
  return profiles;
}

}  // namespace evenspan::machine
]])

evenspan_library(machine LINK evenspan_batch evenspan_files)
target_sources(evenspan_machine PRIVATE ${source})
