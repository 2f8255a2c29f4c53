// Precompiled for nn and train. A source still includes what it uses.
#include <torch/torch.h>
