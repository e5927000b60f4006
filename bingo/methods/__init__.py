"""Self-supervised methods, one module each: settings, views and loss."""

from bingo.methods.bingo import Bingo
from bingo.methods.compress import Compress
from bingo.methods.disco import Disco
from bingo.methods.moco import Moco, TrainedTeacher
from bingo.methods.seed import Seed
from bingo.study import method

# Register the methods with the study's schema, which must not import this package.
method.STUDENTS[:] = [Moco, Bingo, Seed, Disco, Compress]
method.TEACHERS[:] = [TrainedTeacher]
