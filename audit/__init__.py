"""What `make audit` measures: each page in Lighthouse and axe, each chapter in JupyterLab."""
