"""What methods learn or measure about one model before they are used; `laconic fit NAME` on the command line."""

from laconic.fit.contract import Fit as Fit
from laconic.fit.contract import TrainingFit as TrainingFit
from laconic.fit.trainer import Trainer as Trainer
