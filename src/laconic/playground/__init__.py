"""The playground: a page that asks a server of laconic one question in two ways, and shows both answers side by side."""
