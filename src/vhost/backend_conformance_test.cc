#include "vhost/conformance/backend_conformance.h"

namespace crosvm {
namespace {

INSTANTIATE_TEST_SUITE_P(Backends, BackendConformance,
                         testing::Values(local_maker(), vhost_user_maker(), vhost_net_maker()),
                         name_of_maker);

}  // namespace
}  // namespace crosvm
